/**
 * tsync as a library: the offset to a server's clock, with a bound that holds, and a clock that
 * keeps to it.
 *
 * @module
 */

export type { Clock, Discipline, Timers } from "./clock/clock.ts";
export { type ClockSetter, openClockSetter } from "./clock/clock_setter.ts";
export type { Estimate, News } from "./estimate/discipline.ts";
export type { Bounds } from "./estimate/envelope.ts";
export type { Interval } from "./estimate/exchange.ts";
export { compare, SyncedClock, type SyncedTime } from "./clock/synced_clock.ts";
export type { ServerAddress, SocketAddress, TransportName } from "./net/address.ts";
export type { Sink, Source, Stamper, Timestamps } from "./net/framing.ts";
export type { BoundSocket } from "./net/libc/socket.ts";
export type { Certificate, TlsOptions } from "./net/tls.ts";
export type { Connection, Listener, Network } from "./net/transport.ts";
export type {
  Arrival,
  Datagram,
  DatagramListener,
  DatagramNetwork,
  DatagramPort,
} from "./net/udp.ts";
export type { LEAP, Leap } from "./ntp/packet.ts";
export type { AdmissionRefusal, Limits } from "./serve/admission.ts";
export type { Carrier, CARRIERS, Refusal, REFUSALS } from "./serve/figures.ts";
export { type Counters, serve, type ServeOptions, type Server } from "./serve/server.ts";
export type { ServerEvent } from "./serve/notices.ts";
export { type Correction, Corrector } from "./sync/correction.ts";
export type { Fix, ServerFigures, ServerReport } from "./sync/fix.ts";
export { sync, type SyncOptions } from "./sync/sync.ts";
export { type State, type Update, Watch, type WatchOptions } from "./sync/watch.ts";
