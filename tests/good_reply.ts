import { encodeReferenceId, type Packet } from "../src/ntp/packet.ts";

/** A reply that is believed, once its origin is the request's nonce. Tests replace what they are about. */
export const GOOD_REPLY: Packet = {
  leap: "none",
  version: 4,
  mode: 4,
  stratum: 2,
  poll: 0,
  precision: -20,
  rootDelay: 0,
  rootDispersion: 0,
  referenceId: encodeReferenceId("LOCL"),
  reference: 1n,
  origin: 0n,
  receive: 1n,
  transmit: 1n,
};
