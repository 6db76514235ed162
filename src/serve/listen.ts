/**
 * Where a server listens: which addresses, and why it cannot be one of them.
 *
 * @module
 */

import { formatAddress, type SocketAddress } from "../net/address.ts";
import { CertificateError, errorText, isUnknownHost } from "../net/errors.ts";
import type { Network } from "../net/network.ts";

/** What is had of an address until it is closed. */
export interface Bound {
  readonly address: SocketAddress;
  close(): void;
}

type Bind<T extends Bound> = (address: SocketAddress) => T;

/**
 * Opens a listener for each address, or none.
 *
 * @param hosts Addresses or names. None: all addresses.
 * @param flag Where another port can be named.
 */
export async function listen<T extends Bound>(
  network: Network,
  bind: Bind<T>,
  hosts: readonly string[],
  port: number,
  flag: string,
): Promise<T[]> {
  const listeners: T[] = [];
  try {
    for (const host of hosts) {
      for (const hostname of await resolve(network, host)) {
        // A port that was picked for the first address is everybody's.
        listeners.push(open(bind, { hostname, port: listeners[0]?.address.port ?? port }, flag));
      }
    }
    if (hosts.length === 0) listeners.push(...openAll(bind, port, flag));
  } catch (error) {
    for (const listener of listeners) listener.close();
    throw error;
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

function open<T extends Bound>(bind: Bind<T>, address: SocketAddress, flag: string): T {
  try {
    return bind(address);
  } catch (error) {
    if (error instanceof CertificateError) throw error;
    throw new Error(`cannot listen on ${formatAddress(address)}: ${listenErrorText(error, flag)}`, {
      cause: error,
    });
  }
}

/**
 * All addresses: the IPv6 wildcard takes IPv4 too on most systems. Where it
 * does not, IPv4's is opened beside it, and where there is no IPv6, alone.
 */
function openAll<T extends Bound>(bind: Bind<T>, port: number, flag: string): T[] {
  let v6: T;
  try {
    v6 = bind({ hostname: "::", port });
  } catch (error) {
    if (error instanceof CertificateError) throw error;
    if (error instanceof Deno.errors.AddrInUse || error instanceof Deno.errors.PermissionDenied) {
      throw new Error(`cannot listen on port ${port}: ${listenErrorText(error, flag)}`, {
        cause: error,
      });
    }
    return [open(bind, { hostname: "0.0.0.0", port }, flag)];
  }
  try {
    return [v6, bind({ hostname: "0.0.0.0", port: v6.address.port })];
  } catch {
    return [v6];
  }
}

function listenErrorText(error: unknown, flag: string): string {
  if (error instanceof Deno.errors.AddrInUse) {
    return `the address is in use; stop the program that uses it, or choose another with ${flag}`;
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return "permission denied; ports below 1024 need a privilege " +
      `(setcap cap_net_bind_service+ep, or root), or choose another with ${flag}`;
  }
  if (error instanceof Deno.errors.AddrNotAvailable) return "this machine has no such address";
  return errorText(error);
}
