# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_mcpx_global_optspecs
    string join \n json v/verbose no-color log= home= server= h/help V/version
end

function __fish_mcpx_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_mcpx_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_mcpx_using_subcommand
    set -l cmd (__fish_mcpx_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c mcpx -n "__fish_mcpx_needs_command" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_needs_command" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_needs_command" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_needs_command" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_needs_command" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_needs_command" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_needs_command" -s V -l version -d 'Print version'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "login" -d 'Log in to a control server'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "logout" -d 'End the login, here and at its issuer'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "status" -d 'Show who is logged in, and where'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "ls" -d 'List the connections that you may use'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "connect" -d 'Open a connection for an MCP client on this machine'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "exec" -d 'Run a command that finds a connection\'s URL in MCPX_URL'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "client" -d 'Write connections into MCP clients\' own files'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "authorize" -d 'Let the gateway use an MCP server in your own name'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "approve" -d 'Show what waits for approval, or approve one call or grant'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "deny" -d 'Refuse a call or grant that waits for approval'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "request" -d 'Ask for a connection that needs somebody\'s approval'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "grants" -d 'List grants: what runs, and what waits for approval'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "revoke" -d 'End grants at once'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "sessions" -d 'List sessions, newest first'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "replay" -d 'Show what happened in a session, call by call'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "audit" -d 'Check the audit log'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "policy" -d 'Check policies'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "mask" -d 'See what masking does'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "tools" -d 'See the accepted definitions of tools, and accept changed ones'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "trust" -d 'Look at trust rules for jobs'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "serve" -d 'Run the control server and the gateway'
complete -c mcpx -n "__fish_mcpx_needs_command" -f -a "demo" -d 'Try everything on this machine, without an identity provider or a database'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l issuer -d 'Which of the server\'s issuers to log in with [default: its first]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l workload -d 'Show the job\'s own token, found by itself or from SOURCE; `off` looks for none' -r -f -a "auto\t'Whichever is there'
off\t'None: a login is needed'
github\t'GitHub Actions, with `permissions: id-token: write`'
gitlab\t'GitLab, with `id_tokens`'
kubernetes\t'A Kubernetes projected token'
azure\t'Azure workload identity'
spiffe\t'A SPIFFE JWT-SVID in a file'"
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l token-file -d 'A file with the job\'s token, read at each use' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l token-env -d 'A variable with the job\'s token' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l audience -d 'The audience to ask tokens for [default: the server\'s URL]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l trust -d 'The trust rule of the server to come in under [default: the one that fits]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l browser -d 'Log in through a browser on this machine [default: where one is at hand]'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l device -d 'Log in with a code that any device can confirm'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l no-browser -d 'Do not open a browser, only show the address'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l insecure-file -d 'Where there is no keyring: keep the login in a file that only you can read, unencrypted'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l keyutils -d 'Where there is no keyring: keep the login\'s key in the Linux kernel, which forgets it at the next reboot, or after some days without use'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand login" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand logout" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand logout" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand logout" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand logout" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand logout" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand logout" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand logout" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand status" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand status" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand status" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand status" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand status" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand status" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand ls" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand ls" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand ls" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand ls" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand ls" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand ls" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand ls" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l port -d 'The local port [default: a free one]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l reason -d 'Why you need it; recorded with the grant, and policy may ask for it' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l for -d 'For how long you need it, if it needs approval, as in 1h or 30m [default: 1h, or the most]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l tool -d 'Only for this tool, if it needs approval; may be given several times [default: all]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l wait -d 'How long to wait for an approval; 0s not at all [default: as long as the request is open]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l workload -d 'Show the job\'s own token, found by itself or from SOURCE; `off` looks for none' -r -f -a "auto\t'Whichever is there'
off\t'None: a login is needed'
github\t'GitHub Actions, with `permissions: id-token: write`'
gitlab\t'GitLab, with `id_tokens`'
kubernetes\t'A Kubernetes projected token'
azure\t'Azure workload identity'
spiffe\t'A SPIFFE JWT-SVID in a file'"
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l token-file -d 'A file with the job\'s token, read at each use' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l token-env -d 'A variable with the job\'s token' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l audience -d 'The audience to ask tokens for [default: the server\'s URL]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l trust -d 'The trust rule of the server to come in under [default: the one that fits]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l stdio -d 'Speak the protocol on stdin and stdout'
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand connect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l reason -d 'Why you need it; recorded with the grant, and policy may ask for it' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l for -d 'For how long you need it, if it needs approval, as in 1h or 30m [default: 1h, or the most]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l tool -d 'Only for this tool, if it needs approval; may be given several times [default: all]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l wait -d 'How long to wait for an approval; 0s not at all [default: as long as the request is open]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l workload -d 'Show the job\'s own token, found by itself or from SOURCE; `off` looks for none' -r -f -a "auto\t'Whichever is there'
off\t'None: a login is needed'
github\t'GitHub Actions, with `permissions: id-token: write`'
gitlab\t'GitLab, with `id_tokens`'
kubernetes\t'A Kubernetes projected token'
azure\t'Azure workload identity'
spiffe\t'A SPIFFE JWT-SVID in a file'"
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l token-file -d 'A file with the job\'s token, read at each use' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l token-env -d 'A variable with the job\'s token' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l audience -d 'The audience to ask tokens for [default: the server\'s URL]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l trust -d 'The trust rule of the server to come in under [default: the one that fits]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand exec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -f -a "add" -d 'Let a client start a connection'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -f -a "remove" -d 'Take a connection out of a client'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and not __fish_seen_subcommand_from add remove ls" -f -a "ls" -d 'List the clients on this machine, and their connections through mcpx'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l to -d 'The client' -r -f -a "claude-desktop\t'Claude Desktop'
claude-code\t'Claude Code'
cursor\t'Cursor'
vscode\t'VS Code'
windsurf\t'Windsurf'
zed\t'Zed'
gemini-cli\t'Gemini CLI'
codex\t'Codex'"
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l scope -d 'Whose file: the user\'s, or that of the project in the current directory' -r -f -a "user\t''
project\t''"
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l as -d 'The entry\'s name [default: the connection\'s]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l print -d 'Only show what would be written'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l force -d 'Overwrite an entry of that name that mcpx did not make'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l from -d 'The client' -r -f -a "claude-desktop\t'Claude Desktop'
claude-code\t'Claude Code'
cursor\t'Cursor'
vscode\t'VS Code'
windsurf\t'Windsurf'
zed\t'Zed'
gemini-cli\t'Gemini CLI'
codex\t'Codex'"
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l scope -d 'Whose file: the user\'s, or that of the project in the current directory' -r -f -a "user\t''
project\t''"
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l as -d 'Only the entry of this name [default: all that start the connection]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l print -d 'Only show what would be written'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l force -d 'Take out an entry of that name even if mcpx did not make it'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from ls" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from ls" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from ls" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from ls" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from ls" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from ls" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand client; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -l port -d 'The local port that the browser comes back to, where only some are allowed [default: any]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -l no-browser -d 'Do not open a browser'
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -l forget -d 'Forget what you agreed to'
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand authorize" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -l reason -d 'A sentence for the record' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -s y -l yes -d 'Do not ask again on a terminal'
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -l all -d 'List what was decided as well'
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand approve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand deny" -l reason -d 'A sentence for the caller and the record' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand deny" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand deny" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand deny" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand deny" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand deny" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand deny" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand deny" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l reason -d 'Why you need it [default: asked for on a terminal]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l for -d 'For how long you need it, if it needs approval, as in 1h or 30m [default: 1h, or the most]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l tool -d 'Only for this tool, if it needs approval; may be given several times [default: all]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l from -d 'Not before: a time such as 2026-11-20T15:00:00Z, or a span from now on such as 2h' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l extend -d 'Let a grant live longer [default: the one that you have]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l wait -d 'Wait for the decision, for so long at most [default: as long as the request is open]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l workload -d 'Show the job\'s own token, found by itself or from SOURCE; `off` looks for none' -r -f -a "auto\t'Whichever is there'
off\t'None: a login is needed'
github\t'GitHub Actions, with `permissions: id-token: write`'
gitlab\t'GitLab, with `id_tokens`'
kubernetes\t'A Kubernetes projected token'
azure\t'Azure workload identity'
spiffe\t'A SPIFFE JWT-SVID in a file'"
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l token-file -d 'A file with the job\'s token, read at each use' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l token-env -d 'A variable with the job\'s token' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l audience -d 'The audience to ask tokens for [default: the server\'s URL]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l trust -d 'The trust rule of the server to come in under [default: the one that fits]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand request" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand grants" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand grants" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand grants" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand grants" -l all -d 'List those that are over as well'
complete -c mcpx -n "__fish_mcpx_using_subcommand grants" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand grants" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand grants" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand grants" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l grant -d 'A grant as `mcpx grants` shows it; the beginning is enough' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l subject -d 'Every grant of somebody: their id, e-mail address or name at the issuer' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l connection -d 'Every grant for a connection' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l all-of -d 'Every grant of the members of a group' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l reason -d 'A sentence for the record' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand revoke" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand sessions" -s n -l limit -d 'How many' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand sessions" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand sessions" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand sessions" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand sessions" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand sessions" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand sessions" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand sessions" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand replay" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand replay" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand replay" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand replay" -l full -d 'Show arguments and results as well'
complete -c mcpx -n "__fish_mcpx_using_subcommand replay" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand replay" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand replay" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and not __fish_seen_subcommand_from verify" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and not __fish_seen_subcommand_from verify" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and not __fish_seen_subcommand_from verify" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and not __fish_seen_subcommand_from verify" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and not __fish_seen_subcommand_from verify" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and not __fish_seen_subcommand_from verify" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and not __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and not __fish_seen_subcommand_from verify" -f -a "verify" -d 'Verify every record of the log, its tree, and its signature'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -l dir -d 'A server\'s data directory, or a log\'s folder, instead of the server\'s log' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -l key -d 'The log\'s verifier key that you trust [default: the one that lies beside the log]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand audit; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and not __fish_seen_subcommand_from check" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and not __fish_seen_subcommand_from check" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and not __fish_seen_subcommand_from check" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and not __fish_seen_subcommand_from check" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and not __fish_seen_subcommand_from check" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and not __fish_seen_subcommand_from check" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and not __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and not __fish_seen_subcommand_from check" -f -a "check" -d 'Load the policies in a directory as the server would, and say what is wrong with them'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and __fish_seen_subcommand_from check" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and __fish_seen_subcommand_from check" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and __fish_seen_subcommand_from check" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and __fish_seen_subcommand_from check" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and __fish_seen_subcommand_from check" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand policy; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -f -a "classes" -d 'List the classes of values that can be masked'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and not __fish_seen_subcommand_from classes try" -f -a "try" -d 'Mask a file or standard input, as the gateway would'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from classes" -l config -d 'The configuration file whose `[masking]` counts; without it, the built-in rules' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from classes" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from classes" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from classes" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from classes" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from classes" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from classes" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from classes" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l config -d 'The configuration file whose `[masking]` counts; without it, the built-in rules' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l jsonl -d 'Take one JSON-RPC message a line, and print each masked, line for line'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l text -d 'Take the input, or with --jsonl each of its lines, as plain text'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l explain -d 'Say on stderr what was masked: its class and where it stood'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand mask; and __fish_seen_subcommand_from try" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -f -a "ls" -d 'List pinned tools and prompts'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -f -a "diff" -d 'Show what is in quarantine, against what was accepted'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and not __fish_seen_subcommand_from ls diff accept" -f -a "accept" -d 'Accept the new definition of a tool or prompt'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from ls" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from ls" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from ls" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from ls" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from ls" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from ls" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from diff" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from diff" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from diff" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from diff" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from diff" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from diff" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from diff" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from accept" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from accept" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from accept" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from accept" -s y -l yes -d 'Do not ask again on a terminal'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from accept" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from accept" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from accept" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand tools; and __fish_seen_subcommand_from accept" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and not __fish_seen_subcommand_from test" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and not __fish_seen_subcommand_from test" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and not __fish_seen_subcommand_from test" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and not __fish_seen_subcommand_from test" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and not __fish_seen_subcommand_from test" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and not __fish_seen_subcommand_from test" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and not __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and not __fish_seen_subcommand_from test" -f -a "test" -d 'Hold a job\'s token against a rule, and say claim by claim whether it fits'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -l token-file -d 'The file with the token' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -l config -d 'The configuration file' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand trust; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l config -d 'The configuration file' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l ready-file -d 'Write a JSON file with the addresses once requests are accepted' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l check -d 'Check the configuration and the policies, then end'
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l hash-password -d 'Read a password from stdin and print what `[local_issuer]` keeps of it, then end'
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l rotate-keys -d 'Let another key sign grants from now on, on the server that runs with this configuration or, without one, at its next start; then end. Sessions go on'
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand serve" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -l data-dir -d 'Where to put the demo\'s data [default: a fresh temporary directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -l serve -d 'Start everything, log both people in, and stay up instead of giving the tour'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -l keep -d 'Keep the data directory afterwards'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -f -a "sample-server" -d 'An MCP server on stdin and stdout with made-up customers'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and not __fish_seen_subcommand_from sample-server sample-client" -f -a "sample-client" -d 'An MCP client that makes one call and prints the answer'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-server" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-server" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-server" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-server" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-server" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-server" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-server" -s h -l help -d 'Print help'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-client" -l log -d 'Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-client" -l home -d 'Where logins and remembered checkpoints live [default: the user\'s data directory]' -r -F
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-client" -l server -d 'The control server [default: the one of the last login]' -r
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-client" -l json -d 'Print data and errors as JSON'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-client" -s v -l verbose -d 'Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-client" -l no-color -d 'Print no colours, as NO_COLOR does'
complete -c mcpx -n "__fish_mcpx_using_subcommand demo; and __fish_seen_subcommand_from sample-client" -s h -l help -d 'Print help (see more with \'--help\')'
