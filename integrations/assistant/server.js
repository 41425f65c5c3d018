// A plugin of kcosr/assistant: what ravi-broker offers, for its native agents and scheduled sessions.
//
// Each operation is a run of `ravi-broker --format json` under one session, which this process opens when it is first
// needed and which ends with it. No shell is between. What may be secret or private goes over standard input, not in
// arguments, which other processes can read. Time and output are bounded. Values stay away from the model: it is given
// references. Nothing but Node is needed.
'use strict';

const { execFile } = require('node:child_process');

const SECOND = 1000;
const CALL = 60 * SECOND;
const LONGEST_WAIT = 300;
const MAX_OUTPUT = 1024 * 1024;
// Ends of a session after which another one is opened: the call that met it did nothing.
const OVER = new Set(['SESSION_REQUIRED', 'SESSION_INVALID', 'SESSION_EXPIRED', 'SESSION_REVOKED', 'SESSION_FILE_REFUSED']);

class BrokerError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function createPlugin() {
  let settings = { program: 'ravi-broker' };
  let session = null;

  // Runs the command line; `input` is all of its standard input.
  function call(args, { input = '', timeout = CALL, signal } = {}) {
    const socket = settings.socket ? ['--socket', settings.socket] : [];
    const options = { timeout, maxBuffer: MAX_OUTPUT, killSignal: 'SIGTERM', windowsHide: true, signal };
    return new Promise((resolve, reject) => {
      const done = (error, stdout, stderr) => {
        const answer = error ? told(error, stderr) : parsed(stdout);
        return answer instanceof Error ? reject(answer) : resolve(answer);
      };
      const child = execFile(settings.program, ['--format', 'json', ...socket, ...args], options, done);
      // It may have ended before it read anything.
      child.stdin.on('error', () => {});
      child.stdin.end(input);
    });
  }

  async function open() {
    if (!settings.role) throw new BrokerError('not_configured', 'plugins.ravi.role is missing in the configuration');
    const opened = await call(['session', 'open', '--role', settings.role, '--reason', 'kcosr/assistant']);
    return opened.session_file;
  }

  // A call under the session; once more under another one if that session is over.
  async function under(args, options) {
    for (let again = false; ; again = true) {
      session ??= open();
      const mine = session;
      try {
        return await call([...args, '--session-file', await mine], options);
      } catch (error) {
        const over = error instanceof BrokerError && OVER.has(error.code);
        if (session === mine && (over || !(await mine.catch(() => null)))) session = null;
        if (!over || again) throw error;
      }
    }
  }

  const plain = (...args) => async (_input, { signal } = {}) => under(args, { signal });

  return {
    async initialize(_directory, config = {}) {
      for (const name of ['program', 'role', 'socket']) {
        if (typeof config[name] === 'string' && config[name]) settings = { ...settings, [name]: config[name] };
      }
    },
    async shutdown() {
      const file = session && (await session.catch(() => null));
      session = null;
      // It is bound to this process and ends with it anyway.
      if (file) await call(['session', 'close', '--session-file', file], { timeout: 5 * SECOND }).catch(() => {});
    },
    operations: {
      whoami: plain('whoami'),
      'secrets-list': plain('list', 'secrets'),
      'passwords-list': plain('list', 'passwords'),
      reference: async ({ resource }) => reference(word(resource), settings),
      'passwords-create': async ({ domain, username }, { signal } = {}) =>
        under(['password', 'create', word(domain), ...(username ? [`--username=${username}`] : [])], { signal }),
      'secrets-set': async ({ key, value }, { signal } = {}) =>
        under(['set', `secret/${word(key)}`, '--keep-newline'], { input: String(value), signal }),
      'wait-for-code': async ({ channel, from, watch, seconds = 60 }, { signal } = {}) => {
        if (!watch) {
          const sender = from ? [`--from=${from}`] : [];
          return under(['wait-code', `--channel=${word(channel)}`, ...sender, '--open', '--timeout=30m'], { signal });
        }
        const wait = Math.min(Math.max(Math.trunc(seconds), 1), LONGEST_WAIT);
        const timeout = wait * SECOND + CALL;
        return under(['wait-code', `--watch=${word(watch)}`, `--timeout=${wait}s`], { timeout, signal });
      },
      'inbox-list': async ({ channel, limit = 20 }, { signal } = {}) => {
        const count = Math.min(Math.max(Math.trunc(limit), 1), 50);
        return under(['inbox', 'list', `--limit=${count}`, ...(channel ? [`--channel=${channel}`] : [])], { signal });
      },
      'inbox-read': async ({ message }, { signal } = {}) => under(['inbox', 'show', word(message)], { signal }),
      'send-email': async ({ to, subject, text }, { signal } = {}) =>
        under(['send', 'email', `--to=${to}`, `--subject=${subject}`], { input: String(text), signal }),
      'reply-email': async ({ message, text }, { signal } = {}) =>
        under(['reply', word(message)], { input: String(text), signal }),
      'send-sms': async ({ to, text }, { signal } = {}) => under(['send', 'sms', `--to=${to}`], { input: String(text), signal }),
    },
  };
}

// An argument that is not taken for an option.
function word(value) {
  if (typeof value !== 'string' || !value || value.startsWith('-')) {
    throw new BrokerError('invalid_arguments', 'an argument is missing, or begins with a hyphen');
  }
  return value;
}

// Without a call: whether there is such a thing is found when it is used.
function reference(resource, { program, role, socket }) {
  if (!/^(secret\/[A-Z][A-Z0-9_]*|password\/[A-Za-z0-9.-]+(\/[^\s/]+)?|sso\/token)$/.test(resource)) {
    throw new BrokerError('invalid_arguments', 'expected secret/KEY, password/DOMAIN[/USERNAME] or sso/token');
  }
  const named = `ravi://${resource}`;
  const run = [program, ...(socket ? ['--socket', socket] : []), 'run', '--role', role, '--file', `VALUE_FILE=${named}`, '--', 'PROGRAM'];
  const how = 'The program finds the path of a file with the value in VALUE_FILE. The value is not for you to see: do not print it.';
  return { reference: named, run, how };
}

function parsed(stdout) {
  try {
    return stdout.trim() ? JSON.parse(stdout) : {};
  } catch {
    return new BrokerError('answer_unreadable', 'ravi-broker gave no JSON: is it of another version?');
  }
}

// What the command line said went wrong; nothing of its output besides.
function told(failure, stderr) {
  if (failure.name === 'AbortError') return new BrokerError('cancelled', 'the call was cancelled');
  if (failure.code === 'ENOENT') return new BrokerError('not_installed', 'ravi-broker is not where plugins.ravi.program says');
  if (failure.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') return new BrokerError('too_long', 'the answer is too long');
  if (failure.killed) return new BrokerError('timed_out', 'ravi-broker did not answer in time; look before you repeat it');
  try {
    const { error } = JSON.parse(String(stderr).trim().split('\n').pop());
    return new BrokerError(error.reason, `${error.message} (${error.hint})`);
  } catch {
    return new BrokerError('failed', 'ravi-broker failed without saying why');
  }
}

module.exports = { createPlugin };
