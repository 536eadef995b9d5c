'use strict';
// Mocha's spec output, plus one JSON line in $HERKOS_TEST_COUNTS for hack/test to add up: the counts, and what failed
// (by its full title, with the first lines of its error), which hack/test says again at its very end.
const { appendFileSync } = require('node:fs');
const { reporters } = require('mocha');

/** The first lines of an error, enough to tell a timeout from an assertion. */
function briefly(error) {
  const text = String(error?.stack ?? error);
  return text.split('\n').slice(0, 12).join('\n');
}

module.exports = class CountingReporter extends reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const failed = [];
    runner.on('fail', (test, error) => failed.push(`${test.fullTitle()}\n${briefly(error)}`));
    runner.once('end', () => {
      const { passes, failures, pending } = this.stats;
      const file = process.env.HERKOS_TEST_COUNTS;
      if (file !== undefined)
        appendFileSync(file, `${JSON.stringify({ passes, failures, pending, failed })}\n`);
    });
  }
};
