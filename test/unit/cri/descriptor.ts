/** A compiled .proto file in the form of the table test/unit/cri/cri-v1.json. */
import protobuf from 'protobufjs';

export interface FieldRow {
  readonly name: string;
  readonly number: number;
  /** `map` for maps. */
  readonly type: string;
  readonly repeated: boolean;
  readonly map: { readonly key: string; readonly value: string } | null;
  readonly oneof: string | null;
  readonly deprecated: boolean;
  readonly debug_redact: boolean;
}

export interface MessageRow {
  readonly name: string;
  readonly fields: readonly FieldRow[];
  readonly reserved: readonly unknown[];
}

export interface EnumRow {
  readonly name: string;
  readonly values: readonly { readonly name: string; readonly number: number }[];
}

export interface RpcRow {
  readonly name: string;
  readonly request: string;
  readonly response: string;
  readonly client_stream: boolean;
  readonly server_stream: boolean;
}

export interface ApiTable {
  readonly package: string;
  readonly syntax: string;
  readonly messages: readonly MessageRow[];
  readonly enums: readonly EnumRow[];
  readonly services: readonly { readonly name: string; readonly rpcs: readonly RpcRow[] }[];
}

/** Compiles proto3 text. Names stay as they are written. */
export function describeProto(text: string): ApiTable {
  const { root, package: packageName } = protobuf.parse(text, new protobuf.Root(), { keepCase: true });
  root.resolveAll();
  const messages: MessageRow[] = [];
  const enums: EnumRow[] = [];
  const services: { name: string; rpcs: RpcRow[] }[] = [];
  const local = (object: protobuf.ReflectionObject): string =>
    object.fullName.slice(1 + (packageName ?? '').length + 1);
  const visit = (object: protobuf.ReflectionObject): void => {
    if (object instanceof protobuf.Enum)
      enums.push({
        name: local(object),
        values: Object.entries(object.values).map(([name, number]) => ({ name, number })),
      });
    else if (object instanceof protobuf.Service)
      services.push({
        name: local(object),
        rpcs: object.methodsArray.map((method) => ({
          name: method.name,
          request: method.resolvedRequestType === null ? '' : local(method.resolvedRequestType),
          response: method.resolvedResponseType === null ? '' : local(method.resolvedResponseType),
          client_stream: method.requestStream === true,
          server_stream: method.responseStream === true,
        })),
      });
    else if (object instanceof protobuf.Type)
      messages.push({
        name: local(object),
        fields: object.fieldsArray.map((field) => fieldRow(field, local)),
        reserved: listOrNone(object.reserved),
      });
    if (object instanceof protobuf.Namespace) object.nestedArray.forEach(visit);
  };
  visit(root);
  const syntax = /^\s*syntax\s*=\s*"(\w+)"/m.exec(text)?.[1] ?? '';
  return { package: packageName ?? '', syntax, messages, enums, services };
}

function fieldRow(field: protobuf.Field, local: (type: protobuf.ReflectionObject) => string): FieldRow {
  const options = field.options ?? {};
  const type = field.resolvedType === null ? field.type : local(field.resolvedType);
  return {
    name: field.name,
    number: field.id,
    type: field instanceof protobuf.MapField ? 'map' : type,
    repeated: field.repeated,
    map: field instanceof protobuf.MapField ? { key: field.keyType, value: type } : null,
    oneof: field.partOf?.name ?? null,
    deprecated: options['deprecated'] === true,
    debug_redact: options['debug_redact'] === true,
  };
}

/** The table in an order that does not depend on where things stand in the file. */
export function sorted(table: ApiTable): ApiTable {
  const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1);
  return {
    package: table.package,
    syntax: table.syntax,
    messages: table.messages
      .map((message) => ({ ...message, fields: [...message.fields].sort((a, b) => a.number - b.number) }))
      .sort(byName),
    enums: table.enums
      .map((one) => ({ ...one, values: [...one.values].sort((a, b) => a.number - b.number) }))
      .sort(byName),
    services: table.services.map((one) => ({ ...one, rpcs: [...one.rpcs].sort(byName) })).sort(byName),
  };
}

/** protobufjs leaves the list out where there is nothing reserved, whatever its type says. */
function listOrNone(list: readonly unknown[] | undefined): readonly unknown[] {
  return list ?? [];
}
