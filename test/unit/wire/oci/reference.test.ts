import { expect } from 'chai';
import fc from 'fast-check';

import { HerkosError } from '../../../../lib/base/errors.js';
import { formatReference, isRegistryHost, parseReference } from '../../../../lib/wire/oci/reference.js';

const hex = 'a1'.repeat(32);
const digest = `sha256:${hex}`;

describe('parseReference', () => {
  const good: readonly (readonly [string, string])[] = [
    ['busybox', 'docker.io/library/busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36'],
    ['library/busybox', 'docker.io/library/busybox:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['index.docker.io/me/app', 'docker.io/me/app:latest'],
    ['me/app:V1.0_x-y', 'docker.io/me/app:V1.0_x-y'],
    ['registry.k8s.io/pause:3.9', 'registry.k8s.io/pause:3.9'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app', 'localhost:5000/app:latest'],
    ['host:5000/a/b/c:t', 'host:5000/a/b/c:t'],
    ['Upper/app', 'Upper/app:latest'],
    ['127.0.0.1:80/app', '127.0.0.1:80/app:latest'],
    ['[::1]:5000/app:x', '[::1]:5000/app:x'],
    ['[fd00::1]/app', '[fd00::1]/app:latest'],
    [`busybox@${digest}`, `docker.io/library/busybox@${digest}`],
    [`h.example/app:tag@${digest}`, `h.example/app@${digest}`],
    ['h.example/a__b/c.d/e-f/g---h', 'h.example/a__b/c.d/e-f/g---h:latest'],
  ];
  for (const [text, whole] of good) {
    it(`reads ${text}`, () => {
      expect(formatReference(parseReference(text))).to.equal(whole);
      expect(formatReference(parseReference(whole))).to.equal(whole);
    });
  }

  const bad: readonly (readonly [string, RegExp])[] = [
    ['', /empty/],
    [':tag', /empty/],
    ['/app', /empty/],
    ['h.example/', /empty/],
    ['h.example//app', /empty/],
    ['h.example/App', /lower-case/],
    ['app/../etc', /lower-case/],
    ['h.example/../../etc/passwd', /lower-case/],
    ['h.example/a..b', /lower-case/],
    ['h.example/a___b', /lower-case/],
    ['h.example/-a', /lower-case/],
    ['h.example/a b', /lower-case/],
    ['h.example/a\nb', /lower-case/],
    ['h.example:0/a', /not a host/],
    ['h.example:65536/a', /not a host/],
    ['h.example:/a', /not a host/],
    ['-h.example/a', /not a host/],
    ['[::1/a', /not a host/],
    ['[1::2::3]/a', /not a host/],
    ['h.example/a:', /not a tag/],
    ['h.example/a:.x', /not a tag/],
    [`h.example/a:${'t'.repeat(129)}`, /not a tag/],
    ['h.example/a@sha256:abc', /not a digest/],
    [`h.example/a@SHA256:${hex}`, /not a digest/],
    [`h.example/a@${digest}@${digest}`, /not a digest/],
    [`h.example/a@md5:${'0'.repeat(32)}`, /not a digest/],
    [hex, /image id/],
    [`h.example/${'a/'.repeat(130)}a`, /longer than 255/],
    ['x'.repeat(100_000), /too long/],
    ['https://h.example/app', /not a host/],
  ];
  for (const [text, why] of bad) {
    it(`refuses ${JSON.stringify(text.slice(0, 50))}`, () => {
      expect(() => parseReference(text))
        .to.throw(HerkosError, why)
        .with.property('class', 'InvalidArgument');
    });
  }

  it('either refuses a text or reads its own output back unchanged, and never yields an unsafe host', () => {
    const text = fc.string({ unit: fc.constantFrom(...Array.from('aZ09._-:/@[]% \u00e9')), maxLength: 60 });
    fc.assert(
      fc.property(text, (input) => {
        let name;
        try {
          name = parseReference(input);
        } catch (error) {
          expect(error).to.be.instanceOf(HerkosError);
          return;
        }
        expect(isRegistryHost(name.host)).to.equal(true);
        expect(name.host).to.not.match(/[/@%]/);
        expect(parseReference(formatReference(name))).to.deep.equal(name);
      }),
      { numRuns: 2000 },
    );
  });
});
