import { isIPv4, isIPv6, SocketAddress } from 'node:net';

const V1_PREFIX = Buffer.from('PROXY ');
// Section 2.1: the longest line there is, its CRLF included.
const V1_MAX_BYTES = 107;
const V1_UNKNOWN = /^PROXY UNKNOWN(?: |$)/;
const V1_TCP = /^PROXY TCP([46]) (\S+) (\S+) (\S+) (\S+)$/;
const V1_PORT = /^(?:0|[1-9]\d{0,4})$/;

const V2_SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n');
const V2_FIXED_BYTES = 16;
// Section 2 wants a header to fit in 536 bytes, but what says more of a TLS client doesn't; nginx's bound is the same.
const V2_MAX_BYTES = 4096;
const V2_LOCAL = 0x20;
const V2_PROXY = 0x21;
// Bytes of the addresses by the 14th byte: family, and TCP or UDP. No other values are allowed.
const V2_ADDRESS_BYTES = new Map([
  [0x00, 0],
  [0x11, 12],
  [0x12, 12],
  [0x21, 36],
  [0x22, 36],
  [0x31, 216],
  [0x32, 216],
]);
const V2_TCP_IPV4 = 0x11;
const V2_TCP_IPV6 = 0x21;

/** `client` is undefined where the balancer speaks for itself or can't tell: the connection's own address stands. */
export interface ProxyHeader {
  readonly bytes: number;
  readonly client: SocketAddress | undefined;
}

/**
 * The PROXY header that a connection begins with, version 1 or 2, as in haproxy's proxy-protocol.txt (sections 2.1
 * and 2.2). `incomplete` as long as more bytes could still make one, which ends at 107 bytes for version 1 and at
 * 4096 for version 2; `absent` when they begin otherwise. TLVs are skipped, a checksum among them.
 */
export function readProxyHeader(bytes: Buffer): ProxyHeader | 'incomplete' | 'absent' | 'malformed' {
  if (begins(bytes, V1_PREFIX)) return readV1(bytes);
  if (begins(bytes, V2_SIGNATURE)) return bytes.length < V2_FIXED_BYTES ? 'incomplete' : readV2(bytes);
  return 'absent';
}

/** Whether the two are the same as far as both go. */
function begins(bytes: Buffer, prefix: Buffer): boolean {
  const length = Math.min(bytes.length, prefix.length);
  return bytes.compare(prefix, 0, length, 0, length) === 0;
}

function readV1(bytes: Buffer): ProxyHeader | 'incomplete' | 'malformed' {
  const end = bytes.subarray(0, V1_MAX_BYTES).indexOf('\r\n');
  if (end < 0) return bytes.length < V1_MAX_BYTES ? 'incomplete' : 'malformed';
  const line = bytes.toString('latin1', 0, end);
  if (V1_UNKNOWN.test(line)) return { bytes: end + 2, client: undefined };

  const [, version, source = '', destination = '', ...ports] = V1_TCP.exec(line) ?? [];
  const isAddress = version === '4' ? isIPv4 : isPlainIPv6;
  if (!isAddress(source) || !isAddress(destination) || !ports.every(isPort)) return 'malformed';
  const family = version === '4' ? 'ipv4' : 'ipv6';
  return { bytes: end + 2, client: new SocketAddress({ address: source, port: Number(ports[0]), family }) };
}

/** Node takes a zone behind it as well ("fe80::1%eth0"). */
function isPlainIPv6(text: string): boolean {
  return isIPv6(text) && !text.includes('%');
}

function isPort(text: string): boolean {
  return V1_PORT.test(text) && Number(text) <= 65_535;
}

function readV2(bytes: Buffer): ProxyHeader | 'incomplete' | 'malformed' {
  const command = bytes.readUInt8(12);
  const protocol = bytes.readUInt8(13);
  const length = V2_FIXED_BYTES + bytes.readUInt16BE(14);
  const addressBytes = command === V2_LOCAL ? 0 : V2_ADDRESS_BYTES.get(protocol);
  if (command !== V2_LOCAL && command !== V2_PROXY) return 'malformed';
  if (addressBytes === undefined || length < V2_FIXED_BYTES + addressBytes || length > V2_MAX_BYTES)
    return 'malformed';
  if (bytes.length < length) return 'incomplete';
  return { bytes: length, client: command === V2_LOCAL ? undefined : clientV2(bytes, protocol) };
}

/** Both addresses come first, then both ports. */
function clientV2(bytes: Buffer, protocol: number): SocketAddress | undefined {
  const at = V2_FIXED_BYTES;
  if (protocol === V2_TCP_IPV4) {
    const address = bytes.subarray(at, at + 4).join('.');
    return new SocketAddress({ address, port: bytes.readUInt16BE(at + 8), family: 'ipv4' });
  }
  if (protocol === V2_TCP_IPV6) {
    const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(at + 2 * index).toString(16));
    const port = bytes.readUInt16BE(at + 32);
    return new SocketAddress({ address: groups.join(':'), port, family: 'ipv6' });
  }
  return undefined;
}
