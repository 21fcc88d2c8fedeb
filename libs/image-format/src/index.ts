export { IMAGE_TYPES, ImageError } from './image.js';
export type { ImageErrorCode, ImageInfo, ImageLimits, ImageType } from './image.js';
export { ImageInspector } from './inspector.js';
