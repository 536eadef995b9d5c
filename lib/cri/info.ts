/** The free-form part of verbose answers: one key that holds JSON, as clients expect. */

export type InfoMap = Record<string, string>;

/** Only when the client asked for it. */
export async function verboseInfo(
  verbose: boolean,
  describe: () => Readonly<Record<string, unknown>> | Promise<Readonly<Record<string, unknown>>>,
  key: 'info' | 'config' = 'info',
): Promise<InfoMap> {
  return verbose ? { [key]: JSON.stringify(await describe()) } : {};
}
