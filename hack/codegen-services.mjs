// Writes the gRPC service definitions of one .proto file as an ES module with types:
// `<service>.<method>` in lower camel case, in the shape that @grpc/grpc-js takes for servers and clients.
// usage: codegen-services.mjs FILE.proto OUTPUT-WITHOUT-EXTENSION
import { writeFileSync } from 'node:fs';

import protobuf from 'protobufjs';

const [proto, output] = process.argv.slice(2);
if (proto === undefined || output === undefined) throw new Error('usage: codegen-services.mjs PROTO OUTPUT');

const root = await new protobuf.Root().load(proto);
root.resolveAll();

const lowerFirst = (name) => name.charAt(0).toLowerCase() + name.slice(1);
const qualified = (type) => type.fullName.slice(1);

function services(namespace) {
  return namespace.nestedArray.flatMap((item) => {
    if (item instanceof protobuf.Service) return [item];
    return item instanceof protobuf.Namespace ? services(item) : [];
  });
}

function definition(service, method) {
  const request = qualified(method.resolvedRequestType);
  const response = qualified(method.resolvedResponseType);
  return `  ${lowerFirst(method.name)}: {
    path: '/${qualified(service)}/${method.name}',
    originalName: '${lowerFirst(method.name)}',
    requestStream: ${Boolean(method.requestStream)},
    responseStream: ${Boolean(method.responseStream)},
    requestSerialize: (message) => bytes(api.${request}.encode(message).finish()),
    requestDeserialize: (wire) => api.${request}.decode(wire),
    responseSerialize: (message) => bytes(api.${response}.encode(message).finish()),
    responseDeserialize: (wire) => api.${response}.decode(wire),
  },
`;
}

function declaration(method) {
  const request = `api.${qualified(method.resolvedRequestType)}`;
  const response = `api.${qualified(method.resolvedResponseType)}`;
  const types = `${request}.$Properties, ${request}, ${response}.$Properties, ${response}`;
  const flags = `${Boolean(method.requestStream)}, ${Boolean(method.responseStream)}`;
  return `  ${lowerFirst(method.name)}: Method<${types}, ${flags}>;
`;
}

const all = services(root);
const roots = [...new Set(all.map((service) => qualified(service).split('.')[0]))];

const code = `import { ${roots.join(', ')} } from './api.js';

const api = { ${roots.join(', ')} };
// The encoder's array is its own, so the Buffer may share its memory.
const bytes = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
${all
  .map(
    (service) => `
export const ${lowerFirst(service.name)} = {
${service.methodsArray.map((method) => definition(service, method)).join('')}};
`,
  )
  .join('')}`;

const types = `import type * as api from './api.js';

/** What is sent may leave fields out; what is received has them all. */
export interface Method<RequestSent, Request, ResponseSent, Response, RequestStream, ResponseStream> {
  path: string;
  originalName: string;
  requestStream: RequestStream;
  responseStream: ResponseStream;
  requestSerialize(this: void, message: RequestSent): Buffer;
  requestDeserialize(this: void, wire: Buffer): Request;
  responseSerialize(this: void, message: ResponseSent): Buffer;
  responseDeserialize(this: void, wire: Buffer): Response;
}
${all
  .map(
    (service) => `
export declare const ${lowerFirst(service.name)}: {
${service.methodsArray.map((method) => declaration(method)).join('')}};
`,
  )
  .join('')}`;

writeFileSync(`${output}.js`, code);
writeFileSync(`${output}.d.ts`, types);
