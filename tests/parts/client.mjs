// A real MCP client that lists tools, calls one, and prints {"protocol", "tools", "result"}.
//
//   node client.mjs v1|v2 TOOL ARGUMENTS_JSON URL
//   node client.mjs v1|v2 TOOL ARGUMENTS_JSON -- COMMAND ARGS...
//
// v1 is @modelcontextprotocol/sdk (protocols up to 2025-11-25), v2 @modelcontextprotocol/client
// with version negotiation on (2026-07-28 where the server speaks it). CLIENT_PROGRESS=1 asks for
// progress. With CLIENT_ANSWERS=accept or decline, v2 answers so when it is asked to open a page,
// and prints what it was asked as "asked". An error of the protocol is printed as {"error": {code, message, data}} with exit 1.

const [era, tool, argumentsJson, where, ...command] = process.argv.slice(2);
const answers = process.env.CLIENT_ANSWERS;
const asked = [];
const info = { name: `story-${era}`, version: '1' };

async function open() {
  const target = where === '--'
    ? { command: command[0], args: command.slice(1), env: { ...process.env }, stderr: 'inherit' }
    : new URL(where);
  if (era === 'v1') {
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StdioClientTransport } = await import('@modelcontextprotocol/sdk/client/stdio.js');
    const { StreamableHTTPClientTransport } =
      await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const Transport = where === '--' ? StdioClientTransport : StreamableHTTPClientTransport;
    return [new Client(info), new Transport(target)];
  }
  const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
  const Transport = where === '--' ? StdioClientTransport : StreamableHTTPClientTransport;
  const options = { versionNegotiation: { mode: 'auto' } };
  if (answers) options.capabilities = { elicitation: { url: {} } };
  const client = new Client(info, options);
  if (answers) {
    client.setRequestHandler('elicitation/create', async (request) => {
      asked.push(request.params);
      return { action: answers };
    });
  }
  return [client, new Transport(target)];
}

try {
  const [client, transport] = await open();
  await client.connect(transport);
  const tools = [];
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? {} : { cursor });
    tools.push(...page.tools.map((one) => one.name));
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  const progress = [];
  const options = { timeout: 120_000, resetTimeoutOnProgress: true };
  if (process.env.CLIENT_PROGRESS) options.onprogress = (step) => progress.push(step);
  const call = { name: tool, arguments: JSON.parse(argumentsJson) };
  const result = era === 'v1'
    ? await client.callTool(call, undefined, options)
    : await client.callTool(call, options);
  const protocol = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion;
  console.log(JSON.stringify({ protocol, tools, result, progress, asked }));
  await client.close();
  process.exit(0);
} catch (error) {
  const { code, message, data } = error;
  console.log(JSON.stringify({ error: { code, message, data } }));
  console.error(error);
  process.exit(1);
}
