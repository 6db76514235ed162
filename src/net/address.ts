/**
 * Server names as people write them, and socket addresses.
 *
 * @module
 */

import { net } from "./node.ts";

/** How a server is reached: NTP messages over TCP or TLS (`tcp`, `tls`), or NTP over UDP (`ntp`). */
export type TransportName = "tcp" | "tls" | "ntp";

/** tsync's TCP port, with and without TLS. */
export const DEFAULT_PORT = 10085;

/** NTP's UDP port (RFC 5905, section 7.2). */
export const NTP_PORT = 123;

const DEFAULT_PORTS: Readonly<Record<TransportName, number>> = {
  tcp: DEFAULT_PORT,
  tls: DEFAULT_PORT,
  ntp: NTP_PORT,
};

/** An IP address or a host name, and a port. */
export interface SocketAddress {
  /** `192.0.2.7`, `2001:db8::7` without brackets, or a name. */
  readonly hostname: string;
  /** 1 to 65535; 0 to listen on any free port. */
  readonly port: number;
}

/** A server's name, parsed. */
export interface ServerAddress extends SocketAddress {
  /** The name as the user wrote it. */
  readonly name: string;
  /** How the server is reached. Default `tcp`. */
  readonly transport: TransportName;
}

/**
 * Parses a server's name: `host`, `host:port`, `[v6]:port` or a bare IPv6
 * address, alone or after `tcp://` (the default), `tls://` or `ntp://`.
 *
 * @throws {SyntaxError} if it is none of these.
 * @throws {RangeError} if the port is not from 1 to 65535.
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

/** An HTTP proxy. */
export interface ProxyAddress extends SocketAddress {
  /** User name and password, joined by a colon, as UTF-8 in Base64; `null` if there are none. */
  readonly credentials: string | null;
}

/**
 * Parses a proxy: `http://host:port`, with `user:password@` before the host if it demands them. As
 * in other programs, `http://` may be left out.
 *
 * @throws {SyntaxError} if it is none. The message does not quote a password.
 */
export function parseProxy(url: string): ProxyAddress {
  const parts = /^(?:http:\/\/)?(?:(.*)@)?((?:\[[^\]]*\]|[^:@/[\]]+):\d+)\/?$/i.exec(url);
  const [, user, server = ""] = parts ?? [];
  try {
    const { hostname, port } = parseServerAddress(`tcp://${server}`);
    return { hostname, port, credentials: user === undefined ? null : encodeCredentials(user) };
  } catch (error) {
    const shown = url.replace(/^(.*\/\/)?.*@/, "$1…@");
    throw new SyntaxError(`cannot use "${shown}" as a proxy: expected http://HOST:PORT`, {
      cause: error,
    });
  }
}

/** @param user As in a URL: characters may be written as `%40`. */
function encodeCredentials(user: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(decodeURIComponent(user))));
}

/**
 * Whether a list names a host: by its name or a domain that it is in, with or without a dot in front,
 * by its address, or with `*`.
 */
export function isListed(hostname: string, list: readonly string[]): boolean {
  const host = hostname.toLowerCase();
  return list.some((entry) => {
    const name = entry.toLowerCase().replace(/^\*?\./, "");
    return name === "*" || name !== "" && (host === name || host.endsWith(`.${name}`));
  });
}

/**
 * Parses where to listen: `port` (on 127.0.0.1), `address:port` or `[v6]:port`; port 0 is any free
 * one.
 *
 * @throws {SyntaxError} if it is none of these, or the port is above 65535.
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
 * The host in an authority such as `Time.example.:443` or `[2001:db8::7]`, in a form that can be
 * compared: lower case, without a final dot, brackets or a zone.
 *
 * @returns `null` if `authority` is not one.
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

/** The IP version of an address; 0 if it is not an IP address. */
export function ipVersion(text: string): 4 | 6 | 0 {
  if (isIPv6(text)) return 6;
  return /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/.test(text) ? 4 : 0;
}

function isIPv6(text: string): boolean {
  if (!text.includes(":")) return false; // Saves loading node:net where IPv6 is not used.
  const [address = "", ...zones] = text.split("%");
  return zones.length <= 1 && zones[0] !== "" && net().isIPv6(address);
}

/** `192.0.2.7:10085` or `[2001:db8::7]:10085`. */
export function formatAddress({ hostname, port }: SocketAddress): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/**
 * One text for all spellings of an endpoint: IPv4-mapped addresses become IPv4, and `127.0.0.1`,
 * `::1` and the unspecified addresses all become `localhost`.
 *
 * @param address As {@linkcode formatAddress} writes it.
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

/** The zone (interface) of a link-local address, such as `%eth0`; empty if it has none. */
export function zoneOf({ hostname }: Pick<SocketAddress, "hostname">): string {
  return /%.*$/.exec(hostname)?.[0] ?? "";
}

/** Writes out the groups that `::` stands for in an IPv6 address. */
export function expand(address: string): string {
  if (!address.includes("::")) return address;
  const missing = 9 - address.split(":").length;
  const [head, tail] = address.split("::");
  return `${head || "0"}:${"0:".repeat(missing)}${tail || "0"}`;
}

/** The canonical spelling of an IP address, without its zone. IPv6 is all hexadecimal groups. */
export function canonical(address: string): string {
  if (!address.includes(":")) return new URL(`http://${address}`).hostname;
  return new URL(`http://[${address.split("%")[0]}]`).hostname.slice(1, -1);
}
