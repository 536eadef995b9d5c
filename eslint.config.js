import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/** Longest function, in lines; what is longer has a step that deserves a name. */
const functionLinesMax = 50;

export default defineConfig(
  {
    ignores: [
      'dist/',
      'gen/',
      'build/',
      'coverage/',
      'agent/target/',
      'cmd/herkos-host/target/',
      'guest/out/',
      'node_modules/',
    ],
  },
  {
    rules: {
      eqeqeq: 'error',
      'no-async-promise-executor': 'error',
      'no-control-regex': 'off',
      'no-fallthrough': 'error',
      'no-loss-of-precision': 'error',
      'no-self-assign': 'error',
      'no-unreachable-loop': 'error',
      'no-unsafe-finally': 'error',
      'no-useless-catch': 'error',
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error',
    },
  },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      'max-lines-per-function': [
        'error',
        { max: functionLinesMax, skipBlankLines: true, skipComments: true },
      ],
      'no-restricted-syntax': [
        'error',
        { selector: 'ExportDefaultDeclaration', message: 'Export by name: it is found by searching.' },
      ],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      // `ctx` is the first parameter of everything that may take long, whether this step looks at it or not.
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // An abort signal's reason is typed `any` by the platform; `base/context` makes it a HerkosError.
      '@typescript-eslint/only-throw-error': [
        'error',
        { allowThrowingUnknown: true, allowThrowingAny: true },
      ],
    },
  },
  {
    // A suite is one long function that mocha calls; its cases are what counts. Chai asserts by properties.
    files: ['test/**/*.ts'],
    rules: {
      'max-lines-per-function': 'off',
      '@typescript-eslint/no-unused-expressions': 'off',
      // Tests write wire messages by hand, with numbers that no enum has among them.
      '@typescript-eslint/no-unsafe-enum-assignment': 'off',
      '@typescript-eslint/unbound-method': 'off',
    },
  },
  {
    files: ['**/*.js', '**/*.cjs', '**/*.mjs'],
    languageOptions: {
      globals: { process: 'readonly', console: 'readonly', Buffer: 'readonly', module: 'writable' },
    },
  },
);
