import { readProxyHeader } from './proxy-header.js';

const REQUEST = 'GET / HTTP/1.1\r\n\r\n';
const SIGNATURE = '0d0a0d0a000d0a515549540a';
const IPV4 = 'cb007107' + 'c0000201' + 'dc04' + '01bb';
const IPV6 = '20010db8000000000000000000000001' + '20010db8000000000000000000000002' + 'dc04' + '01bb';

const v1 = (line: string) => Buffer.from(`${line}\r\n`);

function v2(command: number, protocol: number, rest = '', length = rest.length / 2): Buffer {
  const fixed = Buffer.from([command, protocol, length >> 8, length & 0xff]);
  return Buffer.concat([Buffer.from(SIGNATURE, 'hex'), fixed, Buffer.from(rest, 'hex')]);
}

function clientOf(header: Buffer) {
  const read = readProxyHeader(Buffer.concat([header, Buffer.from(REQUEST)]));
  if (typeof read === 'string') throw new Error(read);
  expect(read.bytes).toBe(header.length);
  return read.client && `${read.client.family} ${read.client.address} ${read.client.port}`;
}

const VALID: [string, Buffer, string | undefined][] = [
  ['v1 over IPv4', v1('PROXY TCP4 203.0.113.7 192.0.2.1 56324 443'), 'ipv4 203.0.113.7 56324'],
  ['v1 over IPv6', v1('PROXY TCP6 2001:DB8::1 2001:db8::2 0 65535'), 'ipv6 2001:db8::1 0'],
  [
    'the longest v1 over IPv6',
    v1(`PROXY TCP6 ${'ffff:'.repeat(7)}ffff ${'ffff:'.repeat(7)}fffe 65535 65535`),
    'ipv6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535',
  ],
  ['v1 of an unknown client', v1('PROXY UNKNOWN'), undefined],
  ['v1 of an unknown client, and more', v1('PROXY UNKNOWN what\never\r follows'), undefined],
  ['v1 of 107 bytes', v1('PROXY UNKNOWN'.padEnd(105)), undefined],
  ['v2 over IPv4', v2(0x21, 0x11, IPV4), 'ipv4 203.0.113.7 56324'],
  ['v2 over IPv6', v2(0x21, 0x21, IPV6), 'ipv6 2001:db8::1 56324'],
  ['v2 with TLVs', v2(0x21, 0x11, `${IPV4}040003000000`), 'ipv4 203.0.113.7 56324'],
  ['v2 of 4096 bytes', v2(0x21, 0x11, IPV4.padEnd(2 * 4080, '0')), 'ipv4 203.0.113.7 56324'],
  ['v2 LOCAL', v2(0x20, 0x00), undefined],
  ['v2 LOCAL, whatever addresses it holds', v2(0x20, 0x11, IPV4), undefined],
  ['v2 LOCAL, whatever family it names', v2(0x20, 0xff), undefined],
  ['v2 of an unspecified client', v2(0x21, 0x00, 'ab'), undefined],
  ['v2 of UDP over IPv4', v2(0x21, 0x12, IPV4), undefined],
  ['v2 of UDP over IPv6', v2(0x21, 0x22, IPV6), undefined],
  ['v2 of a UNIX socket', v2(0x21, 0x31, '00'.repeat(216)), undefined],
  ['v2 of a UNIX datagram socket', v2(0x21, 0x32, '00'.repeat(216)), undefined],
];

describe('readProxyHeader', () => {
  it.each(VALID)('reads %s, and only its own bytes', (_name, header, client) => {
    expect(clientOf(header)).toBe(client);
  });

  it.each(VALID)('waits for the last byte of %s', (_name, header) => {
    for (let length = 0; length < header.length; length += 1)
      expect(readProxyHeader(header.subarray(0, length))).toBe('incomplete');
    expect(readProxyHeader(header)).toMatchObject({ bytes: header.length });
  });

  it.each([
    ['a request', REQUEST],
    ['a method that begins as v1 does', 'PROPFIND / HTTP/1.1\r\n\r\n'],
    ['an upload', 'POST /images HTTP/1.1\r\n\r\n'],
    ['v1 in lower case', 'proxy TCP4 203.0.113.7 192.0.2.1 56324 443\r\n'],
    ['v1 behind a space', ' PROXY UNKNOWN\r\n'],
    ['v1 without its space', 'PROXY\tUNKNOWN\r\n'],
    ['a blank line', '\r\n\r\nGET'],
    ['v2 with a byte of its signature changed', '\r\n\r\n\0\r\nQUIT\r!'],
  ])('finds none in %s', (_name, text) => {
    expect(readProxyHeader(Buffer.from(text))).toBe('absent');
  });

  it.each([
    ['no fields', 'PROXY '],
    ['a protocol that nobody knows', 'PROXY TCP5 203.0.113.7 192.0.2.1 56324 443'],
    ['more than the word UNKNOWN', 'PROXY UNKNOWNS'],
    ['a field too few', 'PROXY TCP4 203.0.113.7 192.0.2.1 56324'],
    ['a field too many', 'PROXY TCP4 203.0.113.7 192.0.2.1 56324 443 1'],
    ['two spaces', 'PROXY TCP4  203.0.113.7 192.0.2.1 56324 443'],
    ['a single LF within', 'PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\nGET'],
    ['a zero in front', 'PROXY TCP4 203.0.113.07 192.0.2.1 56324 443'],
    ['no IPv4 source', 'PROXY TCP4 2001:db8::1 192.0.2.1 56324 443'],
    ['no IPv4 destination', 'PROXY TCP4 203.0.113.7 192.0.2.256 56324 443'],
    ['no IPv6 source', 'PROXY TCP6 203.0.113.7 2001:db8::2 56324 443'],
    ['no IPv6 destination', 'PROXY TCP6 2001:db8::1 2001:db8:::2 56324 443'],
    ['a zone', 'PROXY TCP6 fe80::1%eth0 fe80::2 56324 443'],
    ['a port above 65535', 'PROXY TCP4 203.0.113.7 192.0.2.1 65536 443'],
    ['a destination port above 65535', 'PROXY TCP4 203.0.113.7 192.0.2.1 56324 65536'],
    ['a port with a zero in front', 'PROXY TCP4 203.0.113.7 192.0.2.1 056 443'],
    ['a negative port', 'PROXY TCP4 203.0.113.7 192.0.2.1 -1 443'],
  ])('refuses v1 with %s', (_name, line) => {
    expect(readProxyHeader(v1(line))).toBe('malformed');
  });

  it('refuses v1 whose 107th byte has no CRLF before it, without waiting for one', () => {
    expect(readProxyHeader(v1('PROXY UNKNOWN'.padEnd(106)))).toBe('malformed');
    expect(readProxyHeader(Buffer.from('PROXY UNKNOWN'.padEnd(107)))).toBe('malformed');
    expect(readProxyHeader(Buffer.from('PROXY UNKNOWN'.padEnd(106)))).toBe('incomplete');
  });

  it.each([
    ['another version', v2(0x11, 0x11, IPV4)],
    ['an unknown command', v2(0x22, 0x11, IPV4)],
    ['an unknown family', v2(0x21, 0x41, IPV4)],
    ['an unknown transport', v2(0x21, 0x13, IPV4)],
    ['too few bytes for IPv4', v2(0x21, 0x11, IPV4.slice(2))],
    ['too few bytes for IPv6', v2(0x21, 0x21, IPV6.slice(2))],
    ['too few bytes for a UNIX socket', v2(0x21, 0x31, '00'.repeat(215))],
    ['more than 4096 bytes', v2(0x21, 0x11, '', 4081)],
    ['LOCAL of more than 4096 bytes', v2(0x20, 0x00, '', 4081)],
  ])('refuses v2 with %s, without waiting for the rest', (_name, header) => {
    expect(readProxyHeader(header.subarray(0, 16))).toBe('malformed');
  });
});
