// Checks the embedded platform with the npm client of OpenWhisk: create, update, get, list, invoke
// (blocking and not), activations, refusals, delete. Prints one line per check; exits 1 if any fails.
//
//   cargo build -p sesemi-platform --bin sesemi-platform --example test_action
//   npm ci && node check.mjs [--platform PROGRAM] [--action PROGRAM]

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import openwhisk from 'openwhisk'

const here = dirname(fileURLToPath(import.meta.url))
const built = join(here, '../../target/debug')
const { values: flags } = parseArgs({
  options: {
    platform: { type: 'string', default: join(built, 'sesemi-platform') },
    action: { type: 'string', default: join(built, 'examples/test_action') }
  }
})

/** Starts the platform on a free port; resolves to its URL, key, and a way to stop it. */
async function startPlatform () {
  const folder = await mkdtemp(join(tmpdir(), 'sesemi-npm-'))
  const keyFile = join(folder, 'guest.auth')
  const config = `
    listen = "127.0.0.1:0"
    state_dir = ${JSON.stringify(join(folder, 'state'))}
    memory = "1GiB"
    [namespaces]
    guest = ${JSON.stringify(keyFile)}
    [images."sesemi/test-action"]
    command = [${JSON.stringify(resolve(flags.action))}]
    sentinel = true
  `
  const file = join(folder, 'platform.toml')
  await writeFile(file, config)
  const child = spawn(resolve(flags.platform), ['--config', file, '--log', 'warn'], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  process.once('exit', () => child.kill('SIGTERM'))
  const ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)))
  const url = await new Promise((resolve, reject) => {
    child.once('error', reject)
    ended.then((code) => reject(new Error(`the platform ended with ${code}`)))
    createInterface({ input: child.stdout }).once('line', (line) => {
      resolve(line.replace('listening on ', ''))
    })
  })
  const key = (await readFile(keyFile, 'utf8')).trim()
  const stop = async () => {
    child.kill('SIGTERM')
    const code = await ended
    await rm(folder, { recursive: true })
    return code
  }
  return { url, key, stop }
}

/** What the call throws. */
async function refusal (promise) {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new assert.AssertionError({ message: 'nothing was thrown' })
}

/** Asks again until an activation has its record (a 404 until then). */
async function eventually (ask) {
  const until = Date.now() + 20_000
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (Date.now() > until) throw error
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

const image = 'sesemi/test-action'
const exec = { kind: 'blackbox', image }

const checks = {
  async 'a wrong key is refused with 401' ({ url }) {
    const stranger = openwhisk({ apihost: url, api_key: '23bc46b1-71f6-4ed5-8c54-816aa4f8c502:x' })
    const error = await refusal(stranger.actions.list())
    assert.equal(error.statusCode, 401)
    assert.equal(error.error.error, 'The supplied authentication is invalid')
  },

  async 'an unknown action is 404 with the client\'s own text' ({ ow }) {
    for (const call of ['get', 'delete', 'invoke']) {
      const error = await refusal(ow.actions[call]('none'))
      assert.equal(error.statusCode, 404)
      assert.equal(error.error.error, 'The requested resource does not exist.')
      assert.equal(typeof error.error.code, 'string')
    }
  },

  async 'an unknown image and a bad limit are refused' ({ ow }) {
    const action = { exec: { kind: 'blackbox', image: 'nobody/nothing' } }
    assert.equal((await refusal(ow.actions.create({ name: 'a', action }))).statusCode, 403)
    const small = { exec, limits: { memory: 1 } }
    const error = await refusal(ow.actions.create({ name: 'a', action: small }))
    assert.equal(error.statusCode, 400)
    assert.equal(error.error.error, 'memory size 1 MB below allowed threshold of 128 MB')
  },

  async 'namespaces, packages, triggers and rules are listed' ({ ow }) {
    assert.deepEqual(await ow.namespaces.list(), ['guest'])
    assert.deepEqual(await ow.packages.list(), [])
    assert.deepEqual(await ow.triggers.list(), [])
    assert.deepEqual(await ow.rules.list(), [])
  },

  async 'create answers the whole action' ({ ow }) {
    const action = {
      exec,
      limits: { memory: 256, concurrency: 2 },
      annotations: [{ key: 'k', value: 1 }],
      parameters: [{ key: 'greeting', value: 'hi' }]
    }
    const made = await ow.actions.create({ name: 'echo', action })
    assert.equal(made.namespace, 'guest')
    assert.equal(made.version, '0.0.1')
    assert.deepEqual(made.limits, { timeout: 60000, memory: 256, logs: 10, concurrency: 2 })
  },

  async 'creating it again is a conflict, updating is not' ({ ow }) {
    const again = await refusal(ow.actions.create({ name: 'echo', action: { exec } }))
    assert.equal(again.statusCode, 409)
    assert.equal(again.error.error, 'resource already exists')
    const updated = await ow.actions.update({ name: 'echo', action: { exec, limits: { timeout: 5000 } } })
    assert.equal(updated.version, '0.0.2')
    assert.equal(updated.limits.timeout, 5000)
    assert.equal(updated.limits.memory, 256)
  },

  async 'get and list see it' ({ ow }) {
    const action = await ow.actions.get('echo')
    assert.equal(action.exec.image, image)
    assert.equal(action.annotations.find((a) => a.key === 'exec').value, 'blackbox')
    const list = await ow.actions.list({ limit: 10, skip: 0 })
    assert.deepEqual(list.map((a) => a.name), ['echo'])
    assert.equal(list[0].parameters, undefined)
    assert.deepEqual(await ow.actions.list({ count: true }), { actions: 1 })
  },

  async 'a blocking invocation answers the record' ({ ow }) {
    const record = await ow.actions.invoke({ name: 'echo', blocking: true, params: { n: 1 } })
    assert.equal(record.response.success, true)
    assert.deepEqual(record.response.result.value, { greeting: 'hi', n: 1 })
    assert.ok(record.annotations.some((a) => a.key === 'initTime'), 'the first is cold')
    const next = await ow.actions.invoke({ name: 'echo', blocking: true })
    assert.ok(!next.annotations.some((a) => a.key === 'initTime'), 'the second is not')
    assert.equal(next.response.result.pid, record.response.result.pid)
  },

  async 'result: true gives the result alone' ({ ow }) {
    const result = await ow.actions.invoke({ name: 'echo', blocking: true, result: true, params: { n: 2 } })
    assert.deepEqual(result.value, { greeting: 'hi', n: 2 })
  },

  async 'a non-blocking invocation answers an id, and the record comes' ({ ow }) {
    const { activationId } = await ow.actions.invoke({ name: 'echo', params: { do: 'log', text: 'hello' } })
    assert.match(activationId, /^[0-9a-f]{32}$/)
    const record = await eventually(() => ow.activations.get(activationId))
    assert.equal(record.name, 'echo')
    assert.equal(record.response.status, 'success')
    const { result } = await ow.activations.result(activationId)
    assert.equal(result.value.text, 'hello')
    assert.ok(Array.isArray((await ow.activations.logs(activationId)).logs))
  },

  async 'logs of an action that runs alone are its own' ({ ow }) {
    // The client's other form: code as text, exec and parameters apart.
    await ow.actions.create({ name: 'logger', action: 'code', exec, params: { p: 1 } })
    const record = await ow.actions.invoke({ name: 'logger', blocking: true, params: { do: 'log', text: 'mine' } })
    assert.equal(record.response.result.init.code, 'code')
    assert.equal(record.response.result.value.p, 1)
    const logs = await eventually(async () => {
      const { logs } = await ow.activations.logs({ name: record.activationId })
      assert.ok(logs.some((line) => line.endsWith('stdout: mine')), JSON.stringify(logs))
      return logs
    })
    assert.match(logs[0], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z std(out|err): /)
    await ow.actions.delete('logger')
  },

  async 'an application error is 502 without a code, with the record' ({ ow }) {
    const params = { do: 'error', text: 'mine' }
    const error = await refusal(ow.actions.invoke({ name: 'echo', blocking: true, params }))
    assert.equal(error.statusCode, 502)
    assert.equal(error.error.code, undefined)
    assert.deepEqual(error.error.response.result, { error: 'mine' })
    assert.equal(error.error.response.status, 'application error')
  },

  async 'a process that dies is a developer error' ({ ow }) {
    const error = await refusal(ow.actions.invoke({ name: 'echo', blocking: true, params: { do: 'crash' } }))
    assert.equal(error.statusCode, 502)
    assert.equal(
      error.error.response.result.error,
      'The action did not produce a valid response and exited unexpectedly.'
    )
  },

  async 'activations are listed, newest first' ({ ow }) {
    const list = await ow.activations.list({ limit: 3 })
    assert.equal(list.length, 3)
    assert.ok(list[0].start >= list[2].start)
    assert.equal(list[0].response, undefined)
    const docs = await ow.activations.list({ limit: 1, docs: true })
    assert.ok(docs[0].response)
    const future = await ow.activations.list({ since: Date.now() + 60_000 })
    assert.deepEqual(future, [])
  },

  async 'eight at once are all answered' ({ ow }) {
    const calls = Array.from({ length: 8 }, (_, n) =>
      ow.actions.invoke({ name: 'echo', blocking: true, result: true, params: { do: 'sleep', ms: 50, n } }))
    const answers = await Promise.all(calls)
    assert.deepEqual(answers.map((a) => a.value.n), [0, 1, 2, 3, 4, 5, 6, 7])
    assert.ok(answers.every((a) => a.most <= 2), 'never above the concurrency of the action')
  },

  async 'delete answers what it was, and it is gone' ({ ow }) {
    const deleted = await ow.actions.delete('echo')
    assert.equal(deleted.name, 'echo')
    assert.equal((await refusal(ow.actions.get('echo'))).statusCode, 404)
    assert.deepEqual(await ow.actions.list(), [])
  }
}

const { url, key, stop } = await startPlatform()
const ow = openwhisk({ apihost: url, api_key: key })
let failed = 0
for (const [name, check] of Object.entries(checks)) {
  try {
    await check({ url, ow })
    console.log(`ok    ${name}`)
  } catch (error) {
    failed += 1
    console.log(`FAIL  ${name}\n      ${error.stack ?? JSON.stringify(error)}`)
  }
}
const code = await stop()
if (code !== 0) {
  failed += 1
  console.log(`FAIL  the platform ended with ${code}`)
}
console.log(failed === 0 ? `all ${Object.keys(checks).length} checks passed` : `${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
