import type { NodeInfo, RuntimeHealth } from '../../lib/cri/ports.js';

export class FakeNodeInfo implements NodeInfo {
  readonly version = '0.1.0';
  cgroupDriver: 'systemd' | 'cgroupfs' = 'cgroupfs';
  answer: RuntimeHealth | Error = { ready: true, reason: '', message: '' };

  health(): Promise<RuntimeHealth> {
    return this.answer instanceof Error ? Promise.reject(this.answer) : Promise.resolve(this.answer);
  }

  describe(): Promise<Readonly<Record<string, unknown>>> {
    return Promise.resolve({ stateDir: '/var/lib/herkos' });
  }
}
