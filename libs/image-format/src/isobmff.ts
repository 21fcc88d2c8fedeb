import type { ByteReader, Walk } from './bytes.js';
import { corrupt, type Findings, type ImageType } from './image.js';

// A camera writes hundreds of these at most; the bounds keep what a walk remembers under 2 MiB.
const MAX_PROPERTIES = 4096;
const MAX_ASSOCIATIONS = 8192;

const AVIF = ['avif', 'avis'];
const HEIC = ['heic', 'heix', 'heim', 'heis', 'hevc', 'hevx', 'hevm', 'hevs'];
const HEIF = ['mif1', 'mif2', 'msf1', 'miaf'];

interface Box {
  readonly type: string;
  readonly end: number;
}

/** An item's property that says or changes the size it is shown at. */
type Property =
  | { readonly type: 'ispe'; readonly width: number; readonly height: number }
  | { readonly type: 'clap'; readonly width: number; readonly height: number }
  | { readonly type: 'irot'; readonly isQuarter: boolean };

/**
 * ISO/IEC 14496-12 (boxes), 23008-12 (HEIF) and AV1 Image File Format 1.1. `meta` names the primary
 * item, its size (`ispe`) and what is done to it in order (`clap`, `irot`; `imir` keeps the size);
 * `iloc` says where items' bytes lie, which has to be inside the file. Boxes are stepped over by
 * length. EXIF's orientation is not looked at, since `irot` and `imir` say it (HEIF, A.2.1). A file
 * without `meta`, as image sequences may be, is measured by its first track (14496-12, 8.3.2).
 */
export function* walkIsobmff(bytes: ByteReader, image: Findings): Walk {
  while (bytes.lacks(8)) yield;
  const ftypBytes = bytes.u32();
  if (bytes.name() !== 'ftyp' || ftypBytes < 16) throw image.unknown();
  const type = yield* readType(bytes, ftypBytes);
  if (!type) throw image.unknown();
  image.is(type);

  let itemsEnd: number | undefined;
  let track: Track | undefined;
  let hasData = false;
  const boxes = new Boxes(bytes, Infinity);
  let box;
  while ((box = yield* boxes.next())) {
    if (box.type === 'meta' && itemsEnd === undefined) {
      itemsEnd = yield* walkMeta(bytes, box.end, image);
    } else if (box.type === 'moov') {
      track ??= yield* walkMovie(bytes, box.end);
    } else if (box.type === 'mdat') {
      hasData = true;
    }
  }
  if (itemsEnd !== undefined) {
    bytes.skipTo(Math.max(bytes.position, itemsEnd));
  } else if (track && hasData) {
    image.shows(track.width, track.height, track.orientation);
  } else {
    throw bytes.cutOff();
  }
}

/** `ftyp` (14496-12, 4.3): the brand the file is written for, then those it fits as well. */
function* readType(bytes: ByteReader, end: number): Walk<ImageType | undefined> {
  while (bytes.lacks(8)) yield;
  const major = bytes.name();
  bytes.skip(4);
  if (HEIC.includes(major)) {
    bytes.skipTo(end);
    return 'image/heic';
  }
  let [isAvif, isHeic, isHeif] = [AVIF.includes(major), false, HEIF.includes(major)];
  while (bytes.position + 4 <= end) {
    while (bytes.lacks(4)) yield;
    const brand = bytes.name();
    isAvif ||= AVIF.includes(brand);
    isHeic ||= HEIC.includes(brand);
    isHeif ||= HEIF.includes(brand);
  }
  bytes.skipTo(end);
  return isAvif ? 'image/avif' : isHeic ? 'image/heic' : isHeif ? 'image/heif' : undefined;
}

/** The boxes from here to `end`, one after the other. */
class Boxes {
  private last: Box | undefined;

  constructor(
    private readonly bytes: ByteReader,
    private readonly end: number,
  ) {}

  /**
   * Leaves the last box, whatever of it was read, and opens the next. Undefined where none can begin:
   * at the end, in padding, or at bytes that are no header.
   */
  *next(): Walk<Box | undefined> {
    const { bytes, end, last } = this;
    if (last) {
      if (bytes.position > last.end) throw corrupt('a box in it is shorter than what it says it holds');
      if (last.end === end) return undefined;
      bytes.skipTo(last.end);
    }
    const start = bytes.position;
    if (end - start < 8) return undefined;
    while (end === Infinity ? !bytes.has(8) : bytes.lacks(8)) {
      if (bytes.isOver) return undefined;
      yield;
    }
    let length = bytes.u32();
    const type = bytes.name();
    if (length === 1) {
      while (bytes.lacks(8)) yield;
      length = bytes.uint(8);
    }
    // Length 0 reaches as far as there is anything.
    this.last = { type, end: length === 0 ? end : start + length };
    if (this.last.end < bytes.position || !/^[ -~]{4}$/.test(type)) return undefined;
    return this.last;
  }
}

/** Tells the primary item's size, and answers how far into the file the items reach. */
function* walkMeta(bytes: ByteReader, end: number, image: Findings): Walk<number> {
  let primary: number | undefined;
  let properties = new Map<number, Property>();
  let extents: Extents | undefined;
  let idatBytes = 0;
  const associations: Associations = { items: new Map(), room: MAX_ASSOCIATIONS };

  while (bytes.lacks(4)) yield;
  bytes.skip(4);
  const boxes = new Boxes(bytes, end);
  let box;
  while ((box = yield* boxes.next())) {
    if (box.type === 'pitm') {
      primary = yield* readPrimary(bytes);
    } else if (box.type === 'iloc') {
      extents = yield* readExtents(bytes);
    } else if (box.type === 'idat') {
      idatBytes = box.end - bytes.position;
    } else if (box.type === 'iprp') {
      const inners = new Boxes(bytes, box.end);
      let inner;
      while ((inner = yield* inners.next())) {
        if (inner.type === 'ipco') properties = yield* readProperties(bytes, inner.end);
        if (inner.type === 'ipma') yield* readAssociations(bytes, associations);
      }
    }
  }
  const applied = (associations.items.get(primary ?? 0) ?? []).flatMap(
    (index) => properties.get(index) ?? [],
  );
  showPrimary(applied, image);
  if (image.info && !extents) throw corrupt('it does not say where its pixels are');
  if (extents && extents.inIdat > idatBytes) throw corrupt('an item reaches past the box it is in');
  return extents?.inFile ?? 0;
}

/** `ispe` is the size as coded; what changes it comes in the order it is applied (HEIF, 6.5.1). */
function showPrimary(properties: readonly Property[], image: Findings): void {
  const coded = properties.find((property) => property.type === 'ispe');
  if (!coded) return;
  let { width, height } = coded;
  image.measures(width, height);
  for (const property of properties) {
    if (property.type === 'clap') {
      width = Math.min(width, property.width);
      height = Math.min(height, property.height);
    } else if (property.type === 'irot' && property.isQuarter) {
      [width, height] = [height, width];
    }
  }
  image.shows(width, height);
}

/** 14496-12, 8.11.4. */
function* readPrimary(bytes: ByteReader): Walk<number> {
  while (bytes.lacks(6)) yield;
  const version = bytes.u8();
  bytes.skip(3);
  if (version === 0) return bytes.u16();
  while (bytes.lacks(4)) yield;
  return bytes.u32();
}

/** HEIF, 9.3.1: properties are numbered from 1, those of no interest too. */
function* readProperties(bytes: ByteReader, end: number): Walk<Map<number, Property>> {
  const properties = new Map<number, Property>();
  let index = 0;
  const boxes = new Boxes(bytes, end);
  let box;
  while ((box = yield* boxes.next())) {
    index++;
    if (box.type === 'ispe') {
      while (bytes.lacks(12)) yield;
      bytes.skip(4);
      properties.set(index, { type: 'ispe', width: bytes.u32(), height: bytes.u32() });
    } else if (box.type === 'clap') {
      while (bytes.lacks(16)) yield;
      const width = Math.round(bytes.u32() / bytes.u32());
      const height = Math.round(bytes.u32() / bytes.u32());
      if (width > 0 && height > 0) properties.set(index, { type: 'clap', width, height });
    } else if (box.type === 'irot') {
      while (bytes.lacks(1)) yield;
      properties.set(index, { type: 'irot', isQuarter: (bytes.u8() & 1) === 1 });
    }
    if (properties.size > MAX_PROPERTIES) throw corrupt('it has more properties than an image needs');
  }
  return properties;
}

/** For each item the numbers of its properties, in the order they apply, and how many more may come. */
interface Associations {
  readonly items: Map<number, number[]>;
  room: number;
}

/** `ipma` (HEIF, 9.3.1). */
function* readAssociations(bytes: ByteReader, associations: Associations): Walk {
  while (bytes.lacks(8)) yield;
  const idBytes = bytes.u8() === 0 ? 2 : 4;
  bytes.skip(2);
  const indexBytes = (bytes.u8() & 1) === 0 ? 1 : 2;
  for (let count = bytes.u32(); count > 0; count--) {
    while (bytes.lacks(idBytes + 1)) yield;
    const id = bytes.uint(idBytes);
    const added = bytes.u8();
    associations.room -= added + 1;
    if (associations.room < 0) throw corrupt('it has more properties than an image needs');
    const indices = associations.items.get(id) ?? [];
    associations.items.set(id, indices);
    for (let n = added; n > 0; n--) {
      while (bytes.lacks(indexBytes)) yield;
      // The top bit says whether a reader has to understand the property.
      indices.push(bytes.uint(indexBytes) & (indexBytes === 1 ? 0x7f : 0x7fff));
    }
  }
}

/** How far items reach into the file, and into the `idat` box. */
interface Extents {
  readonly inFile: number;
  readonly inIdat: number;
}

/** `iloc` (14496-12, 8.11.3): for each item, where the pieces of its bytes lie. */
function* readExtents(bytes: ByteReader): Walk<Extents> {
  while (bytes.lacks(6)) yield;
  const version = bytes.u8();
  bytes.skip(3);
  const sizes = bytes.u16();
  const [offsetBytes, lengthBytes, baseBytes] = [sizes >> 12, (sizes >> 8) & 15, (sizes >> 4) & 15];
  const indexBytes = version === 0 ? 0 : sizes & 15;
  if (
    ![offsetBytes, lengthBytes, baseBytes, indexBytes].every((size) => size === 0 || size === 4 || size === 8)
  ) {
    throw corrupt('its table of where its pixels are makes no sense');
  }
  const idBytes = version < 2 ? 2 : 4;
  const itemBytes = idBytes + (version === 0 ? 0 : 2) + 2 + baseBytes + 2;
  const extentBytes = indexBytes + offsetBytes + lengthBytes;

  const extents = { inFile: 0, inIdat: 0 };
  while (bytes.lacks(idBytes)) yield;
  for (let count = bytes.uint(idBytes); count > 0; count--) {
    while (bytes.lacks(itemBytes)) yield;
    bytes.skip(idBytes);
    const construction = version === 0 ? 0 : bytes.u16() & 15;
    const isHere = bytes.u16() === 0;
    const base = bytes.uint(baseBytes);
    // Extents of no bytes at all say nothing, however many there are.
    for (let n = bytes.u16(); n > 0 && extentBytes > 0; n--) {
      while (bytes.lacks(extentBytes)) yield;
      bytes.skip(indexBytes);
      const reach = base + bytes.uint(offsetBytes) + bytes.uint(lengthBytes);
      if (isHere && construction === 0) extents.inFile = Math.max(extents.inFile, reach);
      if (isHere && construction === 1) extents.inIdat = Math.max(extents.inIdat, reach);
    }
  }
  return extents;
}

interface Track {
  readonly width: number;
  readonly height: number;
  readonly orientation: number;
}

/** The first track that has a size, in `tkhd` (14496-12, 8.3.2): 16.16 fixed point, and a matrix that may turn it. */
function* walkMovie(bytes: ByteReader, end: number): Walk<Track | undefined> {
  const tracks = new Boxes(bytes, end);
  let track;
  while ((track = yield* tracks.next())) {
    if (track.type !== 'trak') continue;
    const boxes = new Boxes(bytes, track.end);
    let box;
    while ((box = yield* boxes.next())) {
      if (box.type !== 'tkhd') continue;
      while (bytes.lacks(1)) yield;
      bytes.skip(bytes.u8() === 0 ? 39 : 51);
      while (bytes.lacks(44)) yield;
      const matrix = bytes.take(36);
      const isTurned = matrix.readInt32BE(0) === 0;
      const width = bytes.u32() >>> 16;
      const height = bytes.u32() >>> 16;
      if (width === 0 || height === 0) continue;
      return { width, height, orientation: isTurned ? 6 : 1 };
    }
  }
  return undefined;
}
