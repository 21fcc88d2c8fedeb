import tseslint from 'typescript-eslint';

const aws = { group: ['@aws-sdk/*', '@smithy/*'], message: 'AWS types stay in libs/object-store/src/s3.' };
const multer = { group: ['multer'], message: 'multer types stay in apps/api/src/upload.' };
const apps = { group: ['**/apps/**', '#apps/*'], message: 'A lib never imports an app.' };
const inside = { group: ['**/libs/**'], message: 'Import a lib by its name (#object-store), not by a path.' };
const restrict = (...patterns) => ({ 'no-restricted-imports': ['error', { patterns }] });
// @types/multer adds a global, so an import rule alone does not see it.
const multerGlobal = {
  selector: 'TSQualifiedName[left.name="Express"][right.name="Multer"]',
  message: multer.message,
};

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', 'loadtest/', '.naru/'] },
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['*.js'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      ...restrict(aws, multer, inside),
      'no-restricted-syntax': ['error', multerGlobal],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      // Nest's modules are classes with nothing in them.
      '@typescript-eslint/no-extraneous-class': ['error', { allowWithDecorator: true }],
      // ... and its DTOs and injection tokens are classes that a literal may stand for.
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
    },
  },
  { files: ['libs/**'], rules: restrict(apps, aws, multer) },
  { files: ['libs/object-store/src/s3/**'], rules: restrict(apps, multer) },
  { files: ['apps/api/src/upload/**'], rules: { ...restrict(aws, inside), 'no-restricted-syntax': 'off' } },
  // They ask a store for what the port hides: which operations it has.
  { files: ['apps/store-tools/**'], rules: restrict(multer, inside) },
  // The embedded store speaks S3 from the other side; tests look at a bucket with a client of their own.
  { files: ['apps/object-store/**', 'apps/*/test/**', 'deploy/test/**'], rules: restrict(multer, inside) },
  {
    files: ['**/*.spec.ts', '**/test/**'],
    rules: {
      // supertest and the SDK hand out `any`; a sentence of a test reads better without casts.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
  { files: ['**/*.js', '**/*.mjs', '**/*.cjs'], extends: [tseslint.configs.disableTypeChecked] },
);
