// E2B's own JavaScript client, unmodified; prints one line of JSON for each check.
const assert = require('node:assert')
const { Sandbox, CommandExitError } = require('@e2b/code-interpreter')

const checks = {
  async code_runs(box) {
    const lines = []
    const made = await box.runCode('x = 20\nprint("a")\nx + 22', { onStdout: (message) => lines.push(message.line) })
    assert.equal(made.text, '42')
    assert.deepEqual(lines, ['a\n'])
    assert.equal((await box.runCode('1/0')).error.name, 'ZeroDivisionError')
    const drawn = await box.runCode('import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()')
    assert.ok(drawn.results[0].png.startsWith('iVBOR'))
    assert.equal(drawn.results[0].chart.type, 'line')
  },
  async contexts_are_apart(box) {
    const other = await box.createCodeContext({ cwd: '/tmp' })
    assert.equal((await box.runCode("import os; (os.getcwd(), 'x' in globals())", { context: other })).text, "('/tmp', False)")
    await box.removeCodeContext(other)
  },
  async files_are_kept(box) {
    await box.files.write('a/b.txt', 'c')
    assert.equal(await box.files.read('a/b.txt'), 'c')
    assert.deepEqual((await box.files.list('a')).map((entry) => entry.name), ['b.txt'])
    assert.equal(await box.files.exists('nope'), false)
    await box.files.rename('a/b.txt', 'a/d.txt')
    await box.files.remove('a')
    assert.equal(await box.files.exists('a'), false)
  },
  async commands_run(box) {
    assert.equal((await box.commands.run('echo $X; whoami', { envs: { X: '1' } })).stdout, '1\nuser\n')
    await assert.rejects(box.commands.run('exit 3'), (fault) => fault instanceof CommandExitError && fault.exitCode === 3)
    const running = await box.commands.run('sleep 100', { background: true })
    assert.ok((await box.commands.list()).some((each) => each.pid === running.pid))
    assert.equal(await running.kill(), true)
  },
  async it_is_listed_and_ends(box) {
    const page = Sandbox.list()
    const seen = []
    while (page.hasNext) seen.push(...(await page.nextItems()))
    assert.ok(seen.some((each) => each.sandboxId === box.sandboxId))
    assert.equal(await box.isRunning(), true)
    await box.kill()
    assert.equal(await box.isRunning(), false)
    await assert.rejects(box.runCode('1'))
  },
}

async function main() {
  const box = await Sandbox.create({ timeoutMs: 120_000 })
  for (const [name, check] of Object.entries(checks)) {
    let fault = null
    try {
      await check(box)
    } catch (found) {
      fault = String(found.stack || found)
    }
    console.log(JSON.stringify({ check: name, fault }))
  }
}

main().then(() => process.exit(0))
