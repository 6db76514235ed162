/**
 * tsync as a library: the offset to a server's clock, with a bound that holds, and a clock that
 * keeps to it.
 *
 * @module
 */

export type { Clock, ClockState, Timers } from "./clock/clock.ts";
export { type ClockSetter, openClockSetter, type Steering } from "./clock/clock_setter.ts";
export type { Estimate, News } from "./estimate/offset_tracker.ts";
export type { Bounds } from "./estimate/envelope.ts";
export type { Interval } from "./estimate/exchange.ts";
export type { FrequencyRange } from "./estimate/hulls.ts";
export {
  type ClockOffset,
  compareTimes,
  SyncedClock,
  type SyncedTime,
} from "./clock/synced_clock.ts";
export type { ServerAddress, SocketAddress, TransportName } from "./net/address.ts";
export { CertificateError, OptionError, type OptionName, TlsError } from "./net/errors.ts";
export type {
  Arrival,
  BoundSocket,
  Certificate,
  Connection,
  Datagram,
  DatagramListener,
  DatagramNetwork,
  DatagramPort,
  Listener,
  Network,
  Sink,
  Source,
  Stamper,
  Timestamps,
  TlsOptions,
} from "./net/network.ts";
export { LEAP, type Leap } from "./ntp/packet.ts";
export type { AdmissionRefusal, Limits } from "./serve/admission.ts";
export { type Carrier, CARRIERS, type Refusal, REFUSALS } from "./serve/counters.ts";
export type { ServerEvent } from "./serve/event_log.ts";
export type { Server, ServerCounters, Trouble } from "./serve/lifecycle.ts";
export { serve, type ServeOptions } from "./serve/server.ts";
export { type Correction, Corrector, type Target } from "./sync/correction.ts";
export type { Fix, ServerFigures, ServerReport } from "./sync/fix.ts";
export { sync, type SyncOptions } from "./sync/sync.ts";
export { type State, type Update, Watch, type WatchOptions } from "./sync/watch.ts";
