// Preloaded (NODE_OPTIONS=--require) into servers of others that can only listen on every
// interface: they listen on 127.0.0.1 instead, and with PARTS_PORT_FILE set they write the port
// that they got into that file, so that tests need not guess a free one.
//
// It patches where listening ends up; patching listen() itself makes address() answer null.
const { writeFileSync, renameSync } = require('node:fs');
const { Server } = require('node:net');

const listen = Server.prototype._listen2;
Server.prototype._listen2 = function listenOnLoopback(address, port, type, backlog, fd, flags) {
  const tcp = typeof port === 'number' && port >= 0;
  const made = tcp
    ? listen.call(this, '127.0.0.1', port, 4, backlog, fd, flags)
    : listen.call(this, address, port, type, backlog, fd, flags);
  const file = process.env.PARTS_PORT_FILE;
  if (tcp && file) {
    this.once('listening', () => {
      writeFileSync(`${file}.part`, JSON.stringify({ port: this.address().port }));
      renameSync(`${file}.part`, file);
    });
  }
  return made;
};
