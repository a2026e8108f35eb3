'use strict';

const COLOURS = { LOG: 32, WARN: 33, ERROR: 31, DEBUG: 95 };
let previous = Date.now();

function write(level, context, message) {
  const paint = (text) => `\u001b[${COLOURS[level]}m${text}\u001b[39m`;
  const now = Date.now();
  const when = new Date(now).toLocaleString('en-US');
  const line =
    `${paint(`[Nest] ${process.pid}  - `)}${when} ${paint(level.padStart(7))} ` +
    `\u001b[33m[${context}] \u001b[39m${paint(message)}\u001b[33m +${now - previous}ms\u001b[39m\n`;
  previous = now;
  (level === 'ERROR' ? process.stderr : process.stdout).write(line);
}

/** Log lines as Nest's console logger writes them: coloured, with local dates, errors on stderr. */
class Logger {
  constructor(context) {
    this.context = context;
  }

  log(message) {
    write('LOG', this.context, message);
  }

  warn(message) {
    write('WARN', this.context, message);
  }

  /** The stack of `error`, if there is one, follows on lines of its own. */
  error(message, error) {
    write('ERROR', this.context, message);
    if (error && error.stack) process.stderr.write(`${error.stack}\n`);
  }

  /** A record of who did what, as JSON over several lines. */
  audit(record) {
    write('LOG', this.context, `[AUDIT] ${JSON.stringify({ timestamp: new Date().toISOString(), ...record }, null, 2)}`);
  }
}

module.exports = { Logger };
