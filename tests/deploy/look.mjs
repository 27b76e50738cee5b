// Looks at the console as a newcomer does: over TLS of the authority that they were given, with a token. Reads {url,
// token, chromium, screenshot} from stdin, the token's path among them; ends with 0 when the job that succeeded is
// there, with its curve. NODE_EXTRA_CA_CERTS names the authority.
import {readFileSync} from 'node:fs';
import {chromium} from 'playwright-core';

const config = JSON.parse(readFileSync(0, 'utf8'));
// Node believes the authority; the browser, which has a store of its own, is not asked.
const answer = await fetch(config.url);
if (!answer.ok) {
  throw new Error(`${config.url}: ${answer.status}`);
}
const browser = await chromium.launch({
  executablePath: config.chromium,
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
});
const page = await browser.newPage({ignoreHTTPSErrors: true, viewport: {width: 1280, height: 900}});
page.setDefaultTimeout(60000);
await page.goto(config.url);
await page.getByLabel('Access token').fill(readFileSync(config.token, 'utf8').trim());
await page.getByRole('button', {name: 'Sign in'}).click();
const row = page.locator('tbody tr').filter({hasText: /succeeded/i});
await row.getByRole('link').first().click();
await page.locator('.chart .line[d*="L"]').first().waitFor();
await page.screenshot({path: config.screenshot, fullPage: true});
await browser.close();
