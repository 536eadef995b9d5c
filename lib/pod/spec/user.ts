/**
 * Who runs in the container: from the pod's security context, else from the image's `User`, with names
 * looked up in the image's own /etc/passwd and /etc/group. Image files are hostile input: lines that do
 * not parse are skipped, numbers outside the kernel's range never match.
 */
import { HerkosError } from '../../base/errors.js';
import type { ContainerSecurity, ContainerUser } from '../../model/container.js';

/** uid_t's last value means "no change" to the kernel. */
const idMax = 0xffff_fffe;
const groupsMax = 65_536;

/** The text of the image's files; empty when it has none. */
export interface UserFiles {
  readonly passwd: string;
  readonly group: string;
}

type Wanted = Pick<
  ContainerSecurity,
  'runAsUser' | 'runAsUsername' | 'runAsGroup' | 'supplementalGroups' | 'supplementalGroupsPolicy'
>;

/**
 * The user, its primary group and all its groups, the primary one first.
 * @throws InvalidArgument for a group without a user, an id out of range, and a name the image does not know
 */
export function userOf(security: Wanted, imageUser: string, files: UserFiles): ContainerUser {
  const accounts = parsePasswd(files.passwd);
  const groups = parseGroup(files.group);
  const named = security.runAsUsername !== undefined && security.runAsUsername !== '';
  if (security.runAsGroup !== undefined && security.runAsUser === undefined && !named)
    throw new HerkosError('InvalidArgument', 'run_as_group is set without run_as_user or run_as_username');
  const wanted =
    security.runAsUser === undefined
      ? named
        ? (security.runAsUsername ?? '')
        : imageUser
      : String(checkId(security.runAsUser, 'run_as_user'));
  const [userPart, groupPart] = splitUser(wanted);
  const account = findAccount(accounts, userPart);
  const gid =
    security.runAsGroup === undefined
      ? groupPart === undefined
        ? account.gid
        : findGroup(groups, groupPart)
      : checkId(security.runAsGroup, 'run_as_group');
  const memberships =
    security.supplementalGroupsPolicy === 'Strict' || account.name === undefined
      ? []
      : groups.filter((group) => group.members.includes(account.name ?? '')).map((group) => group.gid);
  const given = security.supplementalGroups.map((id) => checkId(id, 'supplemental_groups'));
  const all = [...new Set([gid, ...memberships, ...given])];
  if (all.length > groupsMax)
    throw new HerkosError('InvalidArgument', `the user is in more than ${String(groupsMax)} groups`);
  return { uid: account.uid, gid, supplementalGroups: all };
}

interface Account {
  /** Undefined for a number that the image has no name for. */
  readonly name: string | undefined;
  readonly uid: number;
  readonly gid: number;
}

interface Group {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

function splitUser(text: string): [string, string?] {
  const colon = text.indexOf(':');
  if (colon === -1) return [text];
  const group = text.slice(colon + 1);
  return group === '' ? [text.slice(0, colon)] : [text.slice(0, colon), group];
}

function findAccount(accounts: readonly Account[], user: string): Account {
  const wanted = user === '' ? '0' : user;
  const byName = accounts.find((account) => account.name === wanted);
  if (byName !== undefined) return byName;
  const uid = numberOf(wanted);
  if (uid === undefined) throw unknownName('user', wanted, '/etc/passwd');
  return accounts.find((account) => account.uid === uid) ?? { name: undefined, uid, gid: 0 };
}

function findGroup(groups: readonly Group[], group: string): number {
  const byName = groups.find((candidate) => candidate.name === group);
  const gid = byName?.gid ?? numberOf(group);
  if (gid === undefined) throw unknownName('group', group, '/etc/group');
  return gid;
}

function unknownName(kind: string, name: string, file: string): HerkosError {
  return new HerkosError(
    'InvalidArgument',
    `the image has no ${kind} '${name}' in its ${file}; use a number or another image`,
  );
}

function checkId(id: number, what: string): number {
  if (!Number.isInteger(id) || id < 0 || id > idMax)
    throw new HerkosError('InvalidArgument', `${what} ${String(id)} is not between 0 and ${String(idMax)}`);
  return id;
}

function numberOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined;
  const value = Number(text);
  return value <= idMax ? value : undefined;
}

/** `name:password:uid:gid:…` (passwd(5)). */
function parsePasswd(text: string): Account[] {
  return text.split('\n').flatMap((line) => {
    const [name, , uidText, gidText] = line.split(':');
    const uid = numberOf(uidText);
    const gid = numberOf(gidText);
    return name === undefined || name === '' || uid === undefined || gid === undefined
      ? []
      : [{ name, uid, gid }];
  });
}

/** `name:password:gid:member,member` (group(5)). */
function parseGroup(text: string): Group[] {
  return text.split('\n').flatMap((line) => {
    const [name, , gidText, members = ''] = line.split(':');
    const gid = numberOf(gidText);
    return name === undefined || name === '' || gid === undefined
      ? []
      : [{ name, gid, members: members.trim().split(',') }];
  });
}
