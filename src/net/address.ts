/**
 * Names of servers, as people write them, and addresses, as programs do.
 *
 * @module
 */

import { net } from "./node.ts";

/** How messages travel. */
export type TransportName = "tcp" | "tls" | "ntp";

/** TCP port of tsync, with and without TLS. */
export const DEFAULT_PORT = 10085;

/** UDP port of NTP (RFC 5905, section 7.2). */
export const NTP_PORT = 123;

const DEFAULT_PORTS: Readonly<Record<TransportName, number>> = {
  tcp: DEFAULT_PORT,
  tls: DEFAULT_PORT,
  ntp: NTP_PORT,
};

/** An IP address (or a name that resolves to some) and a port. */
export interface SocketAddress {
  /** `192.0.2.7`, `2001:db8::7` without brackets, or a name. */
  readonly hostname: string;
  /** 1 to 65535; 0 where a free one is to be picked. */
  readonly port: number;
}

/** A server as it was named. */
export interface ServerAddress extends SocketAddress {
  /** What the user wrote. */
  readonly name: string;
  /** How it is asked. */
  readonly transport: TransportName;
}

/**
 * Reads a server's name: `host`, `host:port`, `[v6]:port`, a bare IPv6
 * address, each of them alone or after `tcp://` (the default), `tls://` or
 * `ntp://`.
 *
 * @throws {SyntaxError} if it is none of these.
 * @throws {RangeError} if the port is not one from 1 to 65535.
 */
export function parseServerAddress(name: string): ServerAddress {
  const url = /^([a-z][a-z0-9+.-]*):\/\/(.*?)\/?$/i.exec(name);
  const scheme = url?.[1]?.toLowerCase() ?? "tcp";
  if (!Object.hasOwn(DEFAULT_PORTS, scheme)) {
    throw new SyntaxError(
      `cannot use "${name}" as a server: "${scheme}://" is not known, expected tcp://, tls:// or ntp://`,
    );
  }
  const transport = scheme as TransportName;
  const authority = url?.[2] ?? name;
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(authority);
  const plain = /^([^:]*)(?::([^:]*))?$/.exec(authority);
  const [hostname, port] = bracketed !== null
    ? [bracketed[1]!, bracketed[2]]
    : plain !== null
    ? [plain[1]!, plain[2]]
    : [authority, undefined];
  const isV6 = hostname.includes(":");
  const valid = isV6 ? isIPv6(hostname) : bracketed === null && /^[^\s/?#@[\]\\%]+$/.test(hostname);
  if (!valid) {
    throw new SyntaxError(
      `cannot use "${name}" as a server: expected host, host:port, [IPv6]:port or a URL such as tcp://host:port`,
    );
  }
  return { name, transport, hostname, port: parsePort(name, port) ?? DEFAULT_PORTS[transport] };
}

/**
 * Reads where to listen: `port` (on 127.0.0.1), `address:port` or `[v6]:port`; 0 picks a port.
 *
 * @throws {SyntaxError} if it is none of these, or no such port.
 */
export function parseListenAddress(text: string): SocketAddress {
  const parts = /^(?:([^:[\]\s]+):|\[([^\]]+)\]:)?(\d{1,5})$/.exec(text);
  const [, plain, v6, port] = parts ?? [];
  if (parts === null || Number(port) > 65535 || v6 !== undefined && !isIPv6(v6)) {
    throw new SyntaxError(
      `cannot listen on "${text}": expected a port, address:port or [IPv6]:port`,
    );
  }
  return { hostname: plain ?? v6 ?? "127.0.0.1", port: Number(port) };
}

/**
 * The host of an authority such as `Time.example.:443` or `[2001:db8::7]`, spelt as hosts are
 * compared: in lower case, without a final dot, brackets or a zone.
 *
 * @returns `null` if it is none.
 */
export function hostOf(authority: string): string | null {
  const parts = /^(?:([\w.-]*\w)\.?|\[([\da-f:.]+)(?:%[^\]]+)?\])(?::\d*)?$/i.exec(authority);
  return (parts?.[1] ?? parts?.[2])?.toLowerCase() ?? null;
}

function parsePort(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65535) return port;
  throw new RangeError(
    `cannot use "${name}" as a server: port must be an integer from 1 to 65535: current value is "${text}"`,
  );
}

/** Which version an IP address is of; 0 if it is none. */
export function ipVersion(text: string): 4 | 6 | 0 {
  if (isIPv6(text)) return 6;
  return /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/.test(text) ? 4 : 0;
}

function isIPv6(text: string): boolean {
  if (!text.includes(":")) return false; // Whoever has no IPv6 address need not wait for node:net.
  const [address = "", ...zones] = text.split("%");
  return zones.length <= 1 && zones[0] !== "" && net().isIPv6(address);
}

/** `192.0.2.7:10085` or `[2001:db8::7]:10085`. */
export function formatAddress({ hostname, port }: SocketAddress): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/**
 * The same text for all that mean the same end of a connection: whatever the spelling, IPv4's
 * addresses as mapped too, and of this machine `127.0.0.1`, `::1` and the unspecified ones.
 *
 * @param address As {@linkcode formatAddress} makes it.
 */
export function endpoint(address: string): string {
  const { hostname, port } = parseServerAddress(address);
  const zone = zoneOf({ hostname });
  const plain = canonical(hostname);
  const mapped = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(plain);
  const ip = mapped === null ? plain : mapped.slice(1).map((group) => parseInt(group, 16))
    .flatMap((group) => [group >> 8, group & 255]).join(".");
  const isHere = ["127.0.0.1", "0.0.0.0", "::1", "::"].includes(ip);
  return formatAddress({ hostname: isHere ? "localhost" : ip + zone, port });
}

/** `%eth0`, the interface by which a link-local address is meant; nothing if it has none. */
export function zoneOf({ hostname }: Pick<SocketAddress, "hostname">): string {
  return /%.*$/.exec(hostname)?.[0] ?? "";
}

/** The one spelling of an IP address, of those that it has, without a zone: IPv6 in hexadecimal groups. */
export function canonical(address: string): string {
  if (!address.includes(":")) return new URL(`http://${address}`).hostname;
  return new URL(`http://[${address.split("%")[0]}]`).hostname.slice(1, -1);
}
