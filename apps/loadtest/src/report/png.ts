import sharp from 'sharp';

/** A chart as PNG, twice as many pixels as it has units, for chats and screens that show no SVG. */
export function toPng(svg: string): Promise<Buffer> {
  return sharp(Buffer.from(svg), { density: 144 }).png().toBuffer();
}

/** Whether this machine's fonts have Hangul: without, every letter of it would be the same empty box. */
export async function hasHangul(): Promise<boolean> {
  const drawn = async (letter: string): Promise<Buffer> => {
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><text x="4" y="30" font-size="28">${letter}</text></svg>`;
    return sharp(Buffer.from(svg)).raw().toBuffer();
  };
  const [first, second] = await Promise.all(['나', '률'].map(drawn));
  return first !== undefined && second !== undefined && !first.equals(second);
}
