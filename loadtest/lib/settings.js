// What a script is told by its environment: `k6 run -e RATE=50 …`.

/**
 * The value of each variable in `wanted`, or its default where it isn't set or empty. Throws, before anything is sent, an
 * error that names every wrong one, what it holds and what it may hold.
 */
export function settings(wanted) {
  const values = {};
  const mistakes = [];
  for (const [name, { fallback, read, allowed }] of Object.entries(wanted)) {
    const text = (__ENV[name] ?? '').trim();
    values[name] = text === '' ? fallback : read(text);
    if (values[name] === undefined) mistakes.push(`${name} is "${text}"; it has to be ${allowed}`);
  }
  if (mistakes.length > 0) throw new Error(`${mistakes.join('. ')}. Nothing was sent.`);
  return values;
}

/** A number of something: `min` to `max`, both allowed. */
export function whole(fallback, min, max) {
  const read = (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    return value >= min && value <= max ? value : undefined;
  };
  return { fallback, read, allowed: `a whole number, ${min} to ${max}` };
}

/** A part of all: 0 to 1. */
export function share(fallback) {
  const read = (text) => (/^(?:0?\.\d+|0|1)$/.test(text) ? Number(text) : undefined);
  return { fallback, read, allowed: 'a number, 0 to 1, as 0.05' };
}

/** A time, in seconds; written as k6 writes it, in s, m and h. */
export function seconds(fallback, min, max) {
  const read = (text) => {
    const [all, h, m, s] = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?$/.exec(text) ?? [''];
    const value = all === '' ? NaN : Number(h ?? 0) * 3600 + Number(m ?? 0) * 60 + Number(s ?? 0);
    return value >= min && value <= max ? value : undefined;
  };
  return { fallback, read, allowed: `a time, ${min}s to ${max}s, as 30s or 1m30s` };
}
