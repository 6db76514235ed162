/**
 * Opens a server's sockets, and explains why one cannot be opened.
 *
 * @module
 */

import {
  CertificateError,
  errorText,
  isUnknownHost,
  OptionError,
  type OptionName,
} from "../net/errors.ts";
import { formatAddress, type SocketAddress } from "../net/address.ts";
import type { Network } from "../net/network.ts";

/** A socket bound to an address. */
export interface Bound {
  readonly address: SocketAddress;
  close(): void;
}

type Bind<T extends Bound> = (address: SocketAddress) => T;

/**
 * Opens a socket on each address. If one cannot be opened, the caller must close the others.
 *
 * @param hosts Addresses or names; if empty, all addresses.
 * @param option The option that gives the port, for errors.
 */
export async function listen<T extends Bound>(
  network: Network,
  bind: Bind<T>,
  hosts: readonly string[],
  port: number,
  option: OptionName,
): Promise<T[]> {
  if (hosts.length === 0) return openAll(bind, port, option);
  const listeners: T[] = [];
  for (const host of hosts) {
    for (const hostname of await resolve(network, host)) {
      // A free port picked for the first address serves the others too.
      listeners.push(open(bind, { hostname, port: listeners[0]?.address.port ?? port }, option));
    }
  }
  return listeners;
}

async function resolve(network: Network, host: string): Promise<string[]> {
  const what = `cannot listen on ${/^\S+$/.test(host) ? host : JSON.stringify(host)}`;
  let found: string[];
  try {
    found = await network.resolve(host, undefined);
  } catch (error) {
    const why = isUnknownHost(error) ? "there is no such host" : errorText(error);
    throw new Error(`${what}: ${why}`, { cause: error });
  }
  if (found.length === 0) throw new Error(`${what}: it has no address`);
  return found;
}

function open<T extends Bound>(bind: Bind<T>, address: SocketAddress, option: OptionName): T {
  try {
    return bind(address);
  } catch (error) {
    throw listenError(error, formatAddress(address), option);
  }
}

/**
 * Listens on all addresses. On most systems the IPv6 wildcard includes IPv4;
 * elsewhere IPv4's is opened too, and alone where there is no IPv6.
 */
function openAll<T extends Bound>(bind: Bind<T>, port: number, option: OptionName): T[] {
  let v6: T;
  try {
    v6 = bind({ hostname: "::", port });
  } catch (error) {
    const found = listenError(error, `port ${port}`, option);
    if (found instanceof CertificateError || found instanceof OptionError) throw found;
    return [open(bind, { hostname: "0.0.0.0", port }, option)];
  }
  try {
    return [v6, bind({ hostname: "0.0.0.0", port: v6.address.port })];
  } catch {
    return [v6];
  }
}

/** Explains why it cannot listen. @returns Errors that are already explained as they are. */
function listenError(error: unknown, where: string, option: OptionName): Error {
  if (error instanceof CertificateError || error instanceof OptionError) return error as Error;
  const what = `cannot listen on ${where}`;
  const cause = { cause: error };
  if (error instanceof Deno.errors.AddrInUse) {
    const why = "the address is in use; stop the program that uses it";
    return new OptionError(`${what}: ${why}`, option, cause);
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    const why = "permission denied; ports below 1024 need a privilege " +
      (Deno.build.os === "linux" ? "(setcap cap_net_bind_service+ep, or root)" : "(root)");
    return new OptionError(`${what}: ${why}`, option, cause);
  }
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return new Error(`${what}: this machine has no such address`, cause);
  }
  return new Error(`${what}: ${errorText(error)}`, cause);
}
