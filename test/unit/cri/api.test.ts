import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect } from 'chai';

import { imageService, runtimeService } from '#gen/cri/v1/services.js';

import { projectRoot } from '../../arch/project.js';
import { describeProto, sorted } from './descriptor.js';
import type { ApiTable } from './descriptor.js';

const proto = readFileSync(join(projectRoot, 'api/cri/v1/api.proto'), 'utf8');
const table = JSON.parse(readFileSync(join(projectRoot, 'test/unit/cri/cri-v1.json'), 'utf8')) as ApiTable;

/** The table without the fields that say where it comes from. */
function wanted(): ApiTable {
  const { package: name, syntax, messages, enums, services } = table;
  return sorted({ package: name, syntax, messages, enums, services });
}

describe('api/cri/v1/api.proto', () => {
  it('equals the table of CRI v1, neither more nor less', () => {
    expect(sorted(describeProto(proto))).to.deep.equal(wanted());
  });

  it('has 43 RPCs, 175 messages and 478 fields', () => {
    const compiled = describeProto(proto);
    expect(compiled.services.flatMap(({ rpcs }) => rpcs)).to.have.lengthOf(43);
    expect(compiled.messages).to.have.lengthOf(175);
    expect(compiled.messages.flatMap(({ fields }) => fields)).to.have.lengthOf(478);
  });

  it('is what the served definitions are made of', () => {
    const served = [...Object.values(runtimeService), ...Object.values(imageService)].map(
      ({ path, responseStream }) => `${path} ${String(responseStream)}`,
    );
    const rpcs = table.services.flatMap(({ name, rpcs: list }) =>
      list.map((rpc) => `/runtime.v1.${name}/${rpc.name} ${String(rpc.server_stream)}`),
    );
    expect(served.sort()).to.deep.equal(rpcs.sort());
  });

  const changes: readonly (readonly [string, string, string])[] = [
    ['a field more', 'message DNSConfig {', 'message DNSConfig {\n  string extra = 99;'],
    ['a field less', '  string host_ip = 4;\n', ''],
    ['another number', 'string host_ip = 4;', 'string host_ip = 5;'],
    ['another type', 'string host_ip = 4;', 'bytes host_ip = 4;'],
    ['another cardinality', 'string host_ip = 4;', 'repeated string host_ip = 4;'],
    ['another map', 'map<string, string> sysctls', 'map<string, bytes> sysctls'],
    ['a lost deprecation', ' [deprecated = true]', ''],
    ['a lost redaction', ' [debug_redact = true]', ''],
    ['an enum value more', '  TCP = 0;', '  TCP = 0;\n  EXTRA = 77;'],
    ['a message more', 'message VersionRequest {', 'message Extra {}\nmessage VersionRequest {'],
    ['a reserved number', 'message VersionRequest {', 'message VersionRequest {\n  reserved 9;'],
    ['an RPC less', '  rpc Status(StatusRequest) returns (StatusResponse);\n', ''],
    ['a stream', 'returns (StatusResponse)', 'returns (stream StatusResponse)'],
    ['a oneof', 'string host_ip = 4;', 'oneof where { string host_ip = 4; }'],
  ];
  for (const [what, before, after] of changes) {
    it(`would not pass with ${what}`, () => {
      expect(proto).to.contain(before);
      expect(sorted(describeProto(proto.replace(before, after)))).to.not.deep.equal(wanted());
    });
  }
}).timeout(120_000);
