// The images that are uploaded, and the forms they are uploaded in. k6 gives every VU a copy of what is opened and would make
// further ones of a form per upload, so each is made once, as the script is loaded.
import crypto from 'k6/crypto';

// Long, as browsers' are: busboy looks for a short one more slowly.
const BOUNDARY = '----naru-loadtest-2f9c1d7b40a8e653';
export const FORM_TYPE = `multipart/form-data; boundary=${BOUNDARY}`;

/** Opens images of loadtest/images by their size: '20kB', '100kB', '300kB', '900kB'. Only while a script is loaded. */
export function openImages(...sizes) {
  return sizes.map((size) => {
    const name = `hubble-${size}.jpg`;
    const content = open(import.meta.resolve(`../images/${name}`), 'b');
    return { name, content, bytes: content.byteLength, sha256: crypto.sha256(content, 'hex') };
  });
}

/** One upload of these images: the body, and what it holds. */
export function form(images) {
  const pieces = images.flatMap(({ name, content }, index) => [
    ascii(
      `${index > 0 ? '\r\n' : ''}--${BOUNDARY}\r\n` +
        `Content-Disposition: form-data; name="images"; filename="${name}"\r\nContent-Type: image/jpeg\r\n\r\n`,
    ),
    new Uint8Array(content),
  ]);
  pieces.push(ascii(`\r\n--${BOUNDARY}--\r\n`));
  const body = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    body.set(piece, at);
    at += piece.length;
  }
  const described = images.map(({ bytes, sha256 }) => ({ bytes, sha256 }));
  return {
    body: body.buffer,
    images: described,
    bytes: described.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

function ascii(text) {
  return new Uint8Array([...text].map((character) => character.charCodeAt(0)));
}
