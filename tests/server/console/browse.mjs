// Looks at the console in headless Chromium. Reads {url, tokens, chromium, screenshots, axe} from
// stdin, and writes a JSON list of {check, fault} to stdout; `fault` is null for what is well.
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {chromium} from 'playwright-core';

const config = JSON.parse(readFileSync(0, 'utf8'));
const PATIENCE_MS = 60000;
const results = [];
const strangers = [];
const troubles = [];

async function check(name, look) {
  try {
    await look();
    results.push({check: name, fault: null});
  } catch (error) {
    results.push({check: name, fault: String(error.stack || error).slice(0, 3000)});
  }
}

function equal(found, wanted, what = '') {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    throw new Error(`${what} is ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
  }
}

function truth(value, what) {
  if (!value) {
    throw new Error(what);
  }
}

const browser = await chromium.launch({
  executablePath: config.chromium,
  // As root, in containers, it has no sandbox to start.
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
});

// A page of a new tab that is signed in; whatever it asks of others, and whatever goes wrong in it, is
// kept.
async function open(token, options = {}) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, viewport: {width: 1280, height: 900}, ...options,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.on('request', (request) => {
    if (!request.url().startsWith(config.url)) {
      strangers.push(request.url());
    }
  });
  page.on('dialog', (dialog) => {
    troubles.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('pageerror', (error) => troubles.push(`error: ${error}`));
  page.on('console', (message) => {
    // Chromium tells of every answer from 400 on.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) {
      troubles.push(`console: ${message.text()}`);
    }
  });
  if (token) {
    await context.addInitScript((value) => sessionStorage.setItem('lasp.token', value), token);
  }
  return page;
}

async function go(page, hash) {
  await page.goto(`${config.url}/${hash}`);
  await page.locator('h1').first().waitFor();
}

const JOB = '#/jobs/default/steady';
const PAGES = {
  jobs: {hash: '#/jobs', ready: 'tbody tr'},
  job: {hash: JOB, ready: '.chart .line[d*="L"]'},
  failed: {hash: '#/jobs/default/planted', ready: '.log .what'},
  workers: {hash: '#/workers', ready: 'tbody tr'},
};

async function look(page, name) {
  await go(page, PAGES[name].hash);
  await page.locator(PAGES[name].ready).first().waitFor();
}

// ---- signing in ---------------------------------------------------------------------------------

const visitor = await open(null);

await check('without a token it asks for one', async () => {
  await go(visitor, '');
  equal(await visitor.locator('h1').innerText(), 'Sign in');
  equal(await visitor.evaluate(() => document.activeElement.id), 'token', 'the focus');
  await visitor.screenshot({path: join(config.screenshots, 'sign-in.png')});
});

await check('a wrong token is told as such', async () => {
  await visitor.getByLabel('Access token').fill('not-a-token-of-this-coordinator');
  await visitor.keyboard.press('Enter');
  await visitor.getByRole('alert').waitFor();
  truth((await visitor.getByRole('alert').innerText()).includes('does not know the token'), 'no reason is given');
  await visitor.screenshot({path: join(config.screenshots, 'sign-in-refused.png')});
});

await check('a token lets in, and stays in this tab alone', async () => {
  await visitor.getByLabel('Access token').fill(config.tokens.viewer);
  await visitor.getByRole('button', {name: 'Sign in'}).click();
  await visitor.locator('tbody tr').first().waitFor();
  equal(await visitor.evaluate(() => [localStorage.length, document.cookie]), [0, ''], 'what is kept');
  truth(!visitor.url().includes(config.tokens.viewer), 'the token is in the address');
  const other = await visitor.context().newPage();
  await go(other, '');
  equal(await other.locator('h1').innerText(), 'Sign in', 'another tab');
  await other.close();
});

await check('signing out forgets the token', async () => {
  await visitor.getByRole('button', {name: 'Sign out'}).click();
  await visitor.getByLabel('Access token').waitFor();
  equal(await visitor.evaluate(() => sessionStorage.length), 0, 'what is kept');
});

// ---- what it shows ------------------------------------------------------------------------------

const page = await open(config.tokens.viewer);

await check('the list has the jobs with their states', async () => {
  await look(page, 'jobs');
  const steady = page.getByRole('row').filter({hasText: 'steady'});
  truth((await steady.innerText()).includes('Running'), 'steady is not shown as running');
  const planted = page.getByRole('row').filter({hasText: 'planted'});
  truth((await planted.innerText()).includes('Failed'), 'planted is not shown as failed');
  truth(await page.title() === 'Jobs · lasp', 'the title');
});

await check('the list moves by itself', async () => {
  const steps = () => page.getByRole('row').filter({hasText: 'steady'}).locator('[data-label=Progress] .sub').innerText();
  const before = await steps();
  await page.waitForFunction(([text]) => ![...document.querySelectorAll('[data-label=Progress] .sub')].some(
      (cell) => cell.textContent === text), [before]);
});

await check('filters', async () => {
  await page.getByLabel('State', {exact: true}).selectOption('FAILED');
  await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 1);
  truth((await page.locator('tbody').innerText()).includes('planted'), 'not the failed job');
  await page.getByLabel('Filter').fill('labels.team="nlp"');
  await page.keyboard.press('Enter');
  await page.getByText('No job is like this.').waitFor();
  await page.getByLabel('Filter').fill('nonsense');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').filter({hasText: 'filter, column'}).waitFor();
  await page.reload();
  equal(await page.getByLabel('Filter').inputValue(), 'nonsense', 'the filter after a reload');
});

await check('one job: its curves grow', async () => {
  const asked = [];
  page.on('request', (request) => asked.push(new URL(request.url())));
  await look(page, 'job');
  equal(await page.locator('.chart h3').allInnerTexts(), ['Loss', 'Throughput in tokens/s', 'Time of a step on rank 0']);
  equal(await page.locator('.chart .line').count(), 3, 'the lines');
  equal(await page.locator('.chart .area').count(), 7, 'the phases');
  const last = async () => Number((await page.locator('.plot').first().getAttribute('aria-label')).match(/to (\d+)/)[1]);
  const before = await last();
  await page.waitForFunction(([step]) =>
    Number(document.querySelector('.plot').getAttribute('aria-label').match(/to (\d+)/)[1]) > step + 2, [before]);
  const queries = asked.filter((url) => url.pathname.endsWith('/metrics')).map((url) => url.searchParams.has('from_step'));
  equal([queries[0], queries.includes(true)], [false, true], 'all steps at first, then new ones');
});

await check('one job: the grid has its ranks', async () => {
  await page.locator('.ranks td[data-tone=good]').nth(3).waitFor();
  equal(await page.locator('.ranks thead th').allInnerTexts(), ['SP\u00a00', 'SP\u00a01']);
  equal(await page.locator('.ranks tbody th').allInnerTexts(), ['DP\u00a00', 'DP\u00a01']);
  equal(await page.locator('.ranks .rank').allInnerTexts(), [0, 1, 2, 3].map((rank) => `Rank\u00a0${rank}`));
  truth((await page.locator('.ranks').innerText()).includes('Training'), 'no rank trains');
});

await check('one job: events and logs', async () => {
  const events = await page.locator('.events tbody').innerText();
  truth(['Queued', 'Running', 'Recovering', 'Rank killed'].every((word) => events.includes(word)), events);
  await page.locator('.log .what').first().waitFor();
  const lines = await page.locator('.log > div').count();
  await page.waitForFunction((count) => document.querySelectorAll('.log > div').length > count, lines);
  await page.getByLabel('Rank', {exact: true}).selectOption('2');
  await page.waitForFunction(() => {
    const ranks = [...document.querySelectorAll('.log .who')].map((who) => who.textContent);
    return ranks.length > 0 && ranks.every((rank) => rank === '2.2');
  });
  await page.getByLabel('Generation', {exact: true}).selectOption('1');
  await page.waitForFunction(() => {
    const ranks = [...document.querySelectorAll('.log .who')].map((who) => who.textContent);
    return ranks.length > 0 && ranks.every((rank) => rank === '1.2');
  });
});

await check('a curve as a table', async () => {
  await page.getByText('Show as a table').first().click();
  await page.locator('.data[open] tbody tr').nth(3).waitFor();
  equal(await page.locator('.data[open] thead th').allInnerTexts(), ['Step', 'training', 'held-out']);
});

await check('workers', async () => {
  await look(page, 'workers');
  const text = await page.locator('tbody').innerText();
  truth(text.includes('w1') && text.includes('Ready') && text.includes('4 of 4') && text.includes('steady'), text);
});

// ---- other people's words -----------------------------------------------------------------------

await check('names, labels, messages and logs are texts', async () => {
  await look(page, 'failed');
  equal(await page.locator('main h1').innerText(), config.planted, 'the name');
  equal(await page.locator('.labels li').innerText(), `note=${config.planted}`, 'the label');
  truth((await page.locator('.notice').innerText()).includes(config.planted), 'the message');
  truth((await page.locator('.log').innerText()).includes(config.planted), 'the log');
  await look(page, 'jobs');
  truth((await page.locator('tbody').innerText()).includes(config.planted), 'the list');
  equal(await page.locator('main img, main script, main iframe').count(), 0, 'elements of others');
});

await check('control characters are left out', async () => {
  const cleaned = await page.evaluate(async () => {
    const {clean} = await import('/dom.js');
    return clean('a\u001b[31mb\u001b]0;title\u0007c\u0000\u009b\u202ed\te\u001b(B');
  });
  equal(cleaned.replace('(B', 'B').replace('B', ''), 'abcd\te');
});

await check('no script but its own runs', async () => {
  const ran = await page.evaluate(() => {
    const script = document.createElement('div');
    try {
      script.innerHTML = '<img src=x onerror="window.planted=1">';
    } catch (error) {
      return String(error);
    }
    return 'it was taken';
  });
  truth(ran.includes('TrustedHTML'), ran);
  equal(troubles.splice(0).filter((trouble) => !trouble.includes('TrustedHTML')), [], 'what else went wrong');
});

await check('a viewer of another project sees nothing', async () => {
  const stranger = await open(config.tokens.stranger);
  await go(stranger, '#/jobs');
  await stranger.getByText('There are no jobs yet').waitFor();
  await go(stranger, JOB);
  await stranger.getByRole('heading', {name: 'No such job'}).waitFor();
  await stranger.screenshot({path: join(config.screenshots, 'foreign.png')});
  await look(stranger, 'workers');
  const text = await stranger.locator('tbody').innerText();
  truth(text.includes('of another project') && !text.includes('steady'), text);
  await stranger.context().close();
});

// ---- the keyboard -------------------------------------------------------------------------------

await check('by the keyboard alone', async () => {
  await look(page, 'jobs');
  await page.reload();
  await page.locator('tbody tr').first().waitFor();
  await page.keyboard.press('Tab');
  equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content', 'the first stop');
  await page.keyboard.press('Enter');
  equal(await page.evaluate(() => document.activeElement.id), 'content', 'after the skip');
  for (let i = 0; i < 20; ++i) {
    await page.keyboard.press('Tab');
    if (await page.evaluate(() => document.activeElement.textContent) === 'steady') {
      break;
    }
  }
  truth(await page.evaluate(() => document.activeElement.matches(':focus-visible')), 'the focus does not show');
  // The list is drawn anew meanwhile.
  await page.waitForTimeout(4000);
  await page.keyboard.press('Enter');
  await page.locator('.chart .line[d*="L"]').first().waitFor();
  await page.locator('.plot').first().focus();
  await page.keyboard.press('Home');
  truth((await page.locator('.reading').first().innerText()).startsWith('Step 1: training'), 'Home reads the first step');
  await page.keyboard.press('ArrowRight');
  truth((await page.locator('.reading').first().innerText()).startsWith('Step 2: training'), 'an arrow reads the next step');
  await page.goBack();
  await page.locator('tbody tr').first().waitFor();
});

// ---- how it looks -------------------------------------------------------------------------------

const axe = readFileSync(config.axe, 'utf8');

// Chromium's own numbers for a colour.
async function contrast(target, selector, property) {
  return target.evaluate(([chosen, name]) => {
    const light = (color) => {
      const [r, g, b] = color.match(/[\d.]+/g).slice(0, 3).map((part) => part / 255)
          .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const element = document.querySelector(chosen);
    let back = element;
    while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)' || (back === element && name !== 'color')) {
      back = back.parentElement;
    }
    const values = [getComputedStyle(element)[name], getComputedStyle(back).backgroundColor].map(light).sort();
    return (Math.max(...values) + 0.05) / (Math.min(...values) + 0.05);
  }, [selector, property]);
}

for (const colorScheme of ['light', 'dark']) {
  for (const width of [1280, 390]) {
    const shown = await open(config.tokens.viewer, {
      colorScheme, viewport: {width, height: 900}, reducedMotion: width === 390 ? 'reduce' : 'no-preference',
    });
    for (const name of Object.keys(PAGES)) {
      const title = `${name}, ${colorScheme}, ${width} wide`;
      await check(title, async () => {
        await look(shown, name);
        await shown.waitForTimeout(500);
        await shown.screenshot({path: join(config.screenshots, `${name}-${colorScheme}-${width}.png`), fullPage: true});
        const wide = await shown.evaluate(() => document.documentElement.scrollWidth);
        truth(wide <= width, `it is ${wide} wide`);
        await shown.evaluate(axe);
        const found = await shown.evaluate(() => window.axe.run(document, {
          runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
        }));
        equal(found.violations.map((v) => `${v.id}: ${v.nodes.map((node) => node.html).join(' ').slice(0, 300)}`), [], 'axe');
      });
    }
    await check(`colours, ${colorScheme}, ${width} wide`, async () => {
      const back = await shown.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
      const dark = Number(back.match(/\d+/)[0]) < 128;
      equal(dark, colorScheme === 'dark', 'a dark page');
      await look(shown, 'job');
      truth(await contrast(shown, '.chart .reading', 'color') >= 4.5, 'texts');
      for (let i = 0; i < 6; ++i) {
        truth(await contrast(shown, `.key.series-${i}`, 'backgroundColor') >= 3, `the colour of series ${i}`);
      }
      const transition = await shown.evaluate(() =>
        getComputedStyle(document.querySelector('progress'), '::-webkit-progress-value').transitionDuration);
      truth(width !== 390 || transition === '0s', `motion: ${transition}`);
    });
    await shown.context().close();
  }
}

// ---- when the coordinator is away ---------------------------------------------------------------

await check('it tells that the coordinator is away, and goes on', async () => {
  await look(page, 'jobs');
  await page.context().setOffline(true);
  await page.getByRole('status').filter({hasText: 'does not answer'}).waitFor();
  await page.screenshot({path: join(config.screenshots, 'away.png')});
  await page.context().setOffline(false);
  await page.getByRole('status').filter({hasText: 'Live'}).waitFor();
});

await check('nothing is asked of others', async () => equal(strangers, []));
await check('nothing goes wrong in the page', async () => equal(troubles, []));

await browser.close();
process.stdout.write(JSON.stringify(results));
