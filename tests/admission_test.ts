import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { accountOf, Admission, type Client, type Limits } from "../src/serve/admission.ts";

const SECOND = 1_000_000_000n;

describe("Admission.allows()", () => {
  const rows: [string, Limits, string, boolean][] = [
    ["everybody by default", {}, "192.0.2.7", true],
    ["nobody who is denied", { deny: ["192.0.2.0/24"] }, "192.0.2.7", false],
    ["others than the denied", { deny: ["192.0.2.0/24"] }, "192.0.3.7", true],
    ["who is allowed", { allow: ["192.0.2.0/24"] }, "192.0.2.7", true],
    ["nobody else than the allowed", { allow: ["192.0.2.0/24"] }, "192.0.3.7", false],
    ["by the longest prefix", { allow: ["10.1.0.0/16"], deny: ["10.0.0.0/8"] }, "10.1.2.3", true],
    [
      "by the longest, the other way",
      { allow: ["10.0.0.0/8"], deny: ["10.1.0.0/16"] },
      "10.1.2.3",
      false,
    ],
    [
      "nobody both allowed and denied",
      { allow: ["10.0.0.0/8"], deny: ["10.0.0.0/8"] },
      "10.1.2.3",
      false,
    ],
    ["a single address", { allow: ["192.0.2.7"] }, "192.0.2.7", true],
    ["IPv6", { deny: ["2001:db8::/32"] }, "2001:db8::7", false],
    ["by all of an IPv6 address", { deny: ["2001:db8::7"] }, "2001:db8::8", true],
    ["mapped IPv4 as IPv4", { deny: ["192.0.2.0/24"] }, "::ffff:192.0.2.7", false],
    ["mapped IPv4 not as IPv6", { deny: ["::/0"] }, "::ffff:192.0.2.7", true],
    ["by a mapped prefix as IPv4", { deny: ["::ffff:192.0.2.0/120"] }, "192.0.2.7", false],
    ["by a mapped address as IPv4", { allow: ["::ffff:192.0.2.7"] }, "192.0.2.7", true],
    ["nobody under 0.0.0.0/0", { deny: ["0.0.0.0/0"] }, "192.0.2.7", false],
  ];
  for (const [name, limits, address, expected] of rows) {
    it(`answers ${name}`, () => assertEquals(new Admission(limits).allows(address), expected));
  }

  for (
    const prefix of [
      "",
      "host",
      "10.0.0.0/33",
      "::/129",
      "10.0.0.0/",
      "10.0.0.0/8/8",
      "10.0.0/8",
      "fe80::1%eth0",
    ]
  ) {
    it(`refuses the prefix "${prefix}"`, () => {
      assertThrows(() => new Admission({ allow: [prefix] }), SyntaxError, "as a prefix");
    });
  }
});

describe("Admission.connect()", () => {
  it("counts all connections and those of each address", () => {
    const admission = new Admission({ maxClients: 3, maxClientsPerAddress: 2 });
    const one = admission.connect("192.0.2.1", 0n) as Client;
    assertEquals(typeof admission.connect("::ffff:192.0.2.1", 0n), "object");
    assertEquals(admission.connect("192.0.2.1", 0n), "max-clients-per-address");
    assertEquals(typeof admission.connect("192.0.2.2", 0n), "object");
    assertEquals(admission.connect("192.0.2.3", 0n), "max-clients");
    admission.disconnect(one);
    assertEquals(admission.connections, 2);
    assertEquals(typeof admission.connect("192.0.2.1", 0n), "object");
  });

  it("remembers nothing of those that are not admitted", () => {
    const admission = new Admission({ deny: ["::/0"], maxClients: 0 });
    assertEquals(admission.connect("2001:db8::1", 0n), "denied");
    assertEquals(admission.connect("192.0.2.1", 0n), "max-clients");
    assertEquals(admission.accounts, 0);
  });

  it("counts those of a /64 of IPv6 together", () => {
    const admission = new Admission({ maxClientsPerAddress: 2 });
    const one = admission.connect("2001:db8::1", 0n) as Client;
    assertEquals(typeof admission.connect("2001:db8:0:0:7::2", 0n), "object");
    assertEquals(admission.connect("2001:db8::3", 0n), "max-clients-per-address");
    assertEquals(typeof admission.connect("2001:db8:0:1::3", 0n), "object");
    admission.disconnect(one);
    assertEquals(typeof admission.connect("2001:db8::3", 0n), "object");
  });
});

describe("accountOf()", () => {
  const rows: [string, string[]][] = [
    ["192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7"]],
    ["2001:db8:0:0", ["2001:db8::1", "2001:db8:0:0:0:0:0:1", "2001:db8::", "2001:db8::a:b:c:d"]],
    ["2001:db8:1:2", ["2001:db8:1:2::", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5::"]],
    ["2001:0:0:5", ["2001::5:6:7:8:9", "2001:0:0:5:6:7:8:9"]],
    ["0:0:0:0", ["::1", "0:0:0:0:0:0:0:1", "::"]],
    ["0:2:3:4", ["::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"]],
    ["fe8:0:0:0", ["fe8::1"]],
    ["fe80:0:0:0:0:0:0:1", ["fe80::1", "fe80:0:0:0:0:0:0:1"]],
    ["febf:0:0:0:1:2:3:4", ["febf::1:2:3:4", "febf:0:0:0:1:2:3:4"]],
    ["fec0:0:0:0", ["fec0::1"]],
    ["64:ff9b:0:0:0:0:c000:207", ["64:ff9b::c000:207", "64:ff9b:0:0:0:0:c000:207"]],
    ["64:ff9c:0:0", ["64:ff9c::c000:207"]],
  ];
  for (const [account, addresses] of rows) {
    for (const address of addresses) {
      it(`puts ${address} on ${account}`, () => assertEquals(accountOf(address), account));
    }
  }
});

describe("Admission.datagram()", () => {
  const times = (count: number, ask: () => unknown) => Array.from({ length: count }, ask);

  it("takes nothing from the same address's connections, nor they from it", () => {
    const admission = new Admission({ rate: 1 });
    const client = admission.connect("192.0.2.1", 0n) as Client;
    const datagram = () => admission.datagram("192.0.2.1", 0n);
    assertEquals(times(5, datagram), ["answer", "answer", "answer", "answer", "rate"]);
    assertEquals(times(5, () => admission.request(client, 0n)), [true, true, true, true, false]);
    const other = new Admission({ rate: 1 });
    const second = other.connect("192.0.2.1", 0n) as Client;
    times(5, () => other.request(second, 0n));
    assertEquals(other.datagram("192.0.2.1", 0n), "answer");
  });

  it("answers a quarter of those that are too many, and tells a sixteenth so, once a second", () => {
    let picked = 0;
    const admission = new Admission({ rate: 1 }, () => picked++ / 16 % 1);
    // With each second comes one more that is not too many: it is not picked from.
    const within = (second: bigint, count: number) => {
      const counts = { answer: 0, kiss: 0, denied: 0, rate: 0 };
      for (let i = 0; i < count; i++) counts[admission.datagram("192.0.2.1", second * SECOND)]++;
      return counts;
    };
    assertEquals(within(1n, 4), { answer: 4, kiss: 0, denied: 0, rate: 0 });
    assertEquals(within(1n, 1600), { answer: 400, kiss: 1, denied: 0, rate: 1199 });
    assertEquals(within(2n, 1601), { answer: 401, kiss: 1, denied: 0, rate: 1199 });
    // The clock is set back: it is told again.
    assertEquals(within(-99n, 1600), { answer: 400, kiss: 1, denied: 0, rate: 1199 });
  });

  it("counts those of a /64 of IPv6 together", () => {
    const admission = new Admission({ rate: 1 });
    const verdicts = [1, 2, 3, 4, 5].map((i) => admission.datagram(`2001:db8:0:0:0:0:0:${i}`, 0n));
    assertEquals(verdicts, ["answer", "answer", "answer", "answer", "rate"]);
    assertEquals(admission.datagram("2001:db8:0:1:0:0:0:5", 0n), "answer");
  });

  it("searches through no others, however many addresses there are", () => {
    const admission = new Admission();
    for (let i = 0; i < 10_000; i++) admission.connect(`10.0.${i >> 8}.${i & 255}`, 0n);
    const iterators = ["entries", "keys", "values", "forEach", Symbol.iterator] as const;
    const originals = iterators.map((name) => [name, Map.prototype[name]] as const);
    const fail = () => {
      throw new Error("it goes through them");
    };
    for (const name of iterators) Object.assign(Map.prototype, { [name]: fail });
    try {
      for (let i = 0; i < 120_000; i++) {
        const now = BigInt(i) * SECOND / 14_000n;
        admission.datagram(`127.${i >> 16}.${i >> 8 & 255}.${i & 255}`, now);
        if (i % 14_000 === 0) admission.forget(now);
      }
    } finally {
      for (const [name, original] of originals) Object.assign(Map.prototype, { [name]: original });
    }
    assert(admission.accounts <= 60_000, `${admission.accounts} are kept`);
  });
});

describe("Admission.request()", () => {
  it("lets four seconds' worth through at once and the rate thereafter, over all connections", () => {
    const admission = new Admission({ rate: 10 });
    const client = admission.connect("192.0.2.1", 0n) as Client;
    const other = admission.connect("192.0.2.1", 0n) as Client;
    const answered = (now: bigint) => {
      let count = 0;
      while (admission.request(count % 2 === 0 ? client : other, now)) count++;
      return count;
    };
    assertEquals(answered(0n), 40);
    assertEquals(answered(SECOND), 10);
    assertEquals(answered(SECOND / 2n), 0, "it waited to be read");
    assertEquals(answered(3n * SECOND / 2n), 5, "what was before adds nothing again");
    assertEquals(answered(-100n * SECOND), 0, "the clock was set back");
    assertEquals(answered(-99n * SECOND), 10);
    assertEquals(answered(100n * SECOND), 40);
  });

  it("knows no limit at rate 0", () => {
    const admission = new Admission({ rate: 0 });
    const client = admission.connect("192.0.2.1", 0n) as Client;
    for (let i = 0; i < 100_000; i++) assertEquals(admission.request(client, 0n), true);
  });
});

describe("Admission.forget()", () => {
  /** One that has no more requests, and a way to ask whether it still has none. */
  const exhausted = (now: bigint) => {
    const admission = new Admission({ rate: 1 });
    const ask = (at: bigint) => admission.datagram("192.0.2.1", at);
    for (let i = 0; i < 4; i++) assertEquals(ask(now), "answer");
    return { admission, ask };
  };

  it("forgets an address only when nothing would change by it", () => {
    const admission = new Admission();
    const forgetAt = (...seconds: number[]) => {
      for (const second of seconds) admission.forget(BigInt(second) * SECOND);
      return admission.accounts;
    };
    const client = admission.connect("192.0.2.1", 0n) as Client;
    admission.request(client, 0n);
    assertEquals(forgetAt(0, 100, 104), 1, "it is connected");
    admission.disconnect(client);
    assertEquals(forgetAt(105, 106, 107), 1, "its bucket may not be full");
    assertEquals(forgetAt(108, 109, 110, 111, 112, 113), 0);
  });

  it("keeps the account of who closes its last connection and comes again", () => {
    const admission = new Admission({ rate: 1 });
    for (let i = 0; i < 4; i++) {
      const client = admission.connect("192.0.2.1", 0n) as Client;
      assertEquals(admission.request(client, 0n), true);
      admission.disconnect(client);
    }
    const client = admission.connect("192.0.2.1", 0n) as Client;
    assertEquals([admission.request(client, 0n), admission.accounts], [false, 1]);
  });

  it("keeps who goes on asking, for as long as it does", () => {
    const { admission, ask } = exhausted(0n);
    for (let eighths = 1n; eighths < 400n; eighths++) {
      const now = eighths * SECOND / 8n;
      admission.forget(now);
      assertEquals(ask(now), eighths % 8n === 0n ? "answer" : "rate", `${eighths}`);
    }
  });

  for (const [name, step] of [["back", -3600n], ["forward", 3600n]] as const) {
    it(`goes on when the clock is set ${name}`, () => {
      const { admission, ask } = exhausted(5000n * SECOND);
      admission.forget(5000n * SECOND);
      const now = (5000n + step) * SECOND;
      admission.forget(now);
      // Set forward, its bucket is full.
      assertEquals(ask(now), step < 0n ? "rate" : "answer");
      for (let i = 0n; i < 4n; i++) ask(now);
      for (let second = 1n; second < 4n; second++) admission.forget(now + second * SECOND);
      assertEquals([admission.accounts, ask(now)], [1, "rate"]);
      for (let second = 4n; second < 15n; second++) admission.forget(now + second * SECOND);
      assertEquals(admission.accounts, 0);
    });
  }

  it("is not needed for there to be an end of what is kept", () => {
    const admission = new Admission();
    for (let i = 0; i < 60_000; i++) {
      const address = `10.${i >> 16}.${i >> 8 & 255}.${i & 255}`;
      admission.datagram(address, 0n);
      admission.disconnect(admission.connect(address, 0n) as Client);
    }
    assert(admission.accounts <= 100_000, `${admission.accounts} are kept`);
    assert(admission.accounts >= 50_000, `${admission.accounts} are kept`);
  });
});
