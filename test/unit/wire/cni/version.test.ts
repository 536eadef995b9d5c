import { expect } from 'chai';

import {
  compareVersions,
  isAtLeast,
  isSupported,
  newestSupported,
} from '../../../../lib/wire/cni/version.js';

describe('CNI versions', () => {
  it('compare by number, not by text', () => {
    expect(compareVersions('0.10.0', '0.9.0')).to.be.greaterThan(0);
    expect(compareVersions('1.0.0', '1.0.0')).to.equal(0);
    expect(isAtLeast('1.1.0', '1.1.0')).to.equal(true);
    expect(isAtLeast('1.0.0', '1.1.0')).to.equal(false);
    expect(() => compareVersions('1.0', '1.0.0')).to.throw(/'1\.0' is not a CNI version/);
  });

  it('are known or not', () => {
    expect(isSupported('1.1.0')).to.equal(true);
    expect(isSupported('1.2.0')).to.equal(false);
    expect(newestSupported(['0.3.1', '1.0.0', '5.0.0'])).to.equal('1.0.0');
    expect(newestSupported([])).to.equal(undefined);
  });
});
