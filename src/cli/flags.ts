/**
 * The flags of each command: one table, from which the parser, the help, the reference and the
 * shells' completions come.
 *
 * @module
 */

import config from "../../deno.json" with { type: "json" };
import { DEFAULT_LIMITS } from "../serve/admission.ts";
import { IDLE_TIMEOUT_SECONDS } from "../serve/idle_monitor.ts";
import { PACING, TIMEOUT_SECONDS } from "../sync/pacing.ts";
import { DEFAULT_PORT, NTP_PORT } from "../net/address.ts";
import { STEP_THRESHOLD_SECONDS } from "../sync/correction.ts";

export const VERSION: string = config.version;

export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  offsetTooLarge: 3,
  interrupted: 130,
} as const;

export type CommandName = "serve" | "sync";

export interface Flag {
  /** Its name without dashes: of one character after one dash, else after two. */
  readonly name: string;
  /** The placeholder for its value in the help. A flag without one is on or off. */
  readonly value?: string;
  /** May it be given several times? */
  readonly repeatable?: true;
  /** What it does, in a line. */
  readonly help: string;
}

/** What the help of a command says. */
export interface Command {
  readonly synopsis: string;
  readonly about: string;
  readonly flags: readonly Flag[];
  readonly epilogue: string;
}

const HELP: Flag = { name: "help", help: "show this help" };

const HTTP_HOST: Flag = {
  name: "http-host",
  value: "NAME",
  repeatable: true,
  help: "host name to answer HTTP for, besides addresses and localhost, repeatable",
};

export const COMMANDS: Readonly<Record<CommandName, Command>> = {
  serve: {
    synopsis: "tsync serve [options]",
    about: "Answer time requests until SIGINT or SIGTERM.",
    flags: [
      {
        name: "host",
        value: "ADDR",
        repeatable: true,
        help: "address to listen on, repeatable (default: all, IPv4 and IPv6)",
      },
      { name: "port", value: "N", help: `TCP port; 0 picks one (default: ${DEFAULT_PORT})` },
      { name: "udp", help: "also answer NTP clients over UDP" },
      { name: "udp-port", value: "N", help: `UDP port; implies --udp (default: ${NTP_PORT})` },
      {
        name: "tls-cert",
        value: "FILE",
        help: "answer over TLS only, with this certificate chain (PEM); SIGHUP reads it again",
      },
      { name: "tls-key", value: "FILE", help: "the certificate's private key (PEM)" },
      {
        name: "keys",
        value: "FILE",
        help: "keys in chrony's format: requests with a MAC of one are answered with one",
      },
      {
        name: "stratum",
        value: "N",
        help: "stratum to announce, 1 to 15 (default: from the kernel's clock state)",
      },
      {
        name: "allow",
        value: "CIDR",
        repeatable: true,
        help: "answer these addresses and no others, repeatable",
      },
      {
        name: "deny",
        value: "CIDR",
        repeatable: true,
        help: "do not answer these addresses, repeatable; the longest matching prefix decides",
      },
      {
        name: "max-clients",
        value: "N",
        help: `limit on open connections (default: ${DEFAULT_LIMITS.maxClients})`,
      },
      {
        name: "max-clients-per-address",
        value: "N",
        help: "limit on open connections from one address or IPv6 /64 " +
          `(default: ${DEFAULT_LIMITS.maxClientsPerAddress})`,
      },
      {
        name: "rate",
        value: "N",
        help: "limit on requests per second from one address or IPv6 /64, over TCP and UDP each; " +
          `0: none (default: ${DEFAULT_LIMITS.rate})`,
      },
      {
        name: "idle-timeout",
        value: "S",
        help: `close a connection after S seconds of silence (default: ${IDLE_TIMEOUT_SECONDS})`,
      },
      {
        name: "timestamps",
        value: "WHO",
        help: "who timestamps requests: auto, kernel (Linux, not with TLS) or user (default: auto)",
      },
      {
        name: "http",
        value: "[ADDR:]PORT",
        help: "serve a status page, /metrics and /healthz (default: off; ADDR: 127.0.0.1)",
      },
      HTTP_HOST,
      { name: "log", value: "FORMAT", help: "log format on stderr: json or text (default: text)" },
      HELP,
    ],
    epilogue: "Exit status: 0 stopped by a signal; 1 could not start or go on; 2 usage error.",
  },
  sync: {
    synopsis: "tsync sync [SERVER]... [options]",
    about: "Measure how far the local clock is from the servers'.\n" +
      "SERVER is host, host:port or [IPv6]:port, alone or after tcp:// or tls:// " +
      `(port ${DEFAULT_PORT}),\nor ntp:// (NTP over UDP, port ${NTP_PORT}). Default: localhost.`,
    flags: [
      {
        name: "samples",
        value: "N",
        help: `exchanges per server (default: ${PACING.tcp.samples}, on a long path ` +
          `${PACING.tcp.farSamples}; ntp:// ${PACING.ntp.samples}, ` +
          `${PACING.ntp.spacingSeconds} s apart)`,
      },
      {
        name: "timeout",
        value: "S",
        help: "seconds per server; what it has answered by then counts " +
          `(default: ${TIMEOUT_SECONDS})`,
      },
      { name: "json", help: "print one JSON object per fix" },
      { name: "watch", help: "keep a synchronised clock running, and show it, until interrupted" },
      {
        name: "interval",
        value: "S",
        help:
          `seconds between polls, with --watch (default: ${PACING.tcp.firstIntervalSeconds} to ` +
          `${PACING.tcp.lastIntervalSeconds}, as needed)`,
      },
      {
        name: "set",
        help: "correct the system clock (needs a privilege), with --watch after every poll",
      },
      {
        name: "step-threshold",
        value: "S",
        help: `step the clock beyond S seconds, slew it below (default: ${STEP_THRESHOLD_SECONDS})`,
      },
      {
        name: "refclock",
        value: "SOCKET",
        help: "feed chronyd through its SOCK reference clock, with --watch, not with --set",
      },
      {
        name: "clockbound",
        value: "FILE",
        help: "write ClockBound's shared memory, with --watch (Linux)",
      },
      {
        name: "http",
        value: "[ADDR:]PORT",
        help: "serve /metrics, /healthz and /now, with --watch (default: off; ADDR: 127.0.0.1)",
      },
      HTTP_HOST,
      {
        name: "max-offset",
        value: "S",
        help: "exit 3 unless |offset| + error bound is at most S seconds; " +
          "with --http, /healthz says so instead",
      },
      {
        name: "timestamps",
        value: "WHO",
        help: "who timestamps replies: auto, kernel (Linux, not with TLS) or user (default: auto)",
      },
      {
        name: "ca",
        value: "FILE",
        help: "authorities for tls:// servers' certificates, PEM (default: the system's)",
      },
      {
        name: "proxy",
        value: "URL",
        help: "reach tls:// servers through this HTTP proxy (default: HTTPS_PROXY, if set)",
      },
      { name: "keys", value: "FILE", help: "keys in chrony's format, of which --key names one" },
      { name: "key", value: "ID", help: "believe only replies with a MAC of this key of --keys" },
      { name: "4", help: "use IPv4 only" },
      { name: "6", help: "use IPv6 only" },
      { name: "quiet", help: "print errors only (and what --json asks for)" },
      HELP,
    ],
    epilogue: "Exit status: 0 a fix was made; 1 no fix; 2 usage error; 3 --max-offset not met;\n" +
      "130 interrupted before a fix.",
  },
};

/** A flag's name as it is written on the command line. */
export function dashed(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

/** The help of one command, or of the program. */
export function helpText(command: CommandName | undefined): string {
  if (command === undefined) {
    const lines = Object.values(COMMANDS).map(({ synopsis, about }) =>
      `  ${synopsis.padEnd(34)}${about.split("\n")[0]!}`
    );
    return `tsync ${VERSION}: make two machines agree on the time\n\n` +
      `Usage:\n${lines.join("\n")}\n  tsync --help | --version\n\n` +
      "`tsync serve --help` and `tsync sync --help` list the options.";
  }
  const { synopsis, about, flags, epilogue } = COMMANDS[command];
  const width = 5 +
    Math.max(...flags.map(({ name, value = "" }) => `${dashed(name)} ${value}`.length));
  const rows = flags.map(({ name, value = "", help }) => {
    return `  ${`${dashed(name)} ${value}`.padEnd(width)}${help}`;
  });
  return `Usage: ${synopsis}\n\n${about}\n\nOptions:\n${rows.join("\n")}\n\n${epilogue}`;
}
