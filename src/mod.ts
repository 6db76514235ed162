/**
 * tsync as a library: the offset to a server's clock, with a bound that holds.
 *
 * @module
 */

export type { Clock, Discipline, Timers } from "./clock/clock.ts";
export type { ServerAddress, SocketAddress, TransportName } from "./net/address.ts";
export type { Certificate, TlsOptions } from "./net/tls.ts";
export type { Connection, Listener, Network } from "./net/transport.ts";
export type { Leap } from "./ntp/packet.ts";
export type { AdmissionRefusal, Limits } from "./serve/admission.ts";
export type { Refusal } from "./serve/figures.ts";
export {
  type Counters,
  serve,
  type ServeOptions,
  type Server,
  type ServerEvent,
} from "./serve/server.ts";
export {
  type Fix,
  type ServerFigures,
  type ServerReport,
  sync,
  type SyncOptions,
} from "./sync/sync.ts";
