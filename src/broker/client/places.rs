//! The table of MCP clients: where each keeps its servers, and in which format.
//!
//! Pure: paths are made from a [`Machine`] and never looked at here. Every row names the
//! documentation that it was written from; a client that moves its file is a change of one row.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Format;
use super::json::Shape;
use crate::types::InvalidText;

/// A client that can be given entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Anthropic's desktop application.
    ClaudeDesktop,
    /// Anthropic's command line.
    ClaudeCode,
    /// The Cursor editor.
    Cursor,
    /// Visual Studio Code.
    VsCode,
    /// The Windsurf editor.
    Windsurf,
    /// The Zed editor.
    Zed,
    /// Google's command line.
    GeminiCli,
    /// OpenAI's command line and editor extension, which share a file.
    Codex,
}

/// Whose file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The user's own, for every project.
    User,
    /// The project's, which is shared with whoever has the project.
    Project,
}

/// The operating systems that clients tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Linux and the other Unix systems.
    Linux,
    /// macOS.
    MacOs,
    /// Windows.
    Windows,
}

/// Where things are on the machine at hand.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The operating system.
    pub system: System,
    /// The user's home directory.
    pub home: PathBuf,
    /// `APPDATA` on Windows.
    pub app_data: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config: Option<PathBuf>,
    /// `CLAUDE_CONFIG_DIR`.
    pub claude_config: Option<PathBuf>,
    /// `CODEX_HOME`.
    pub codex_home: Option<PathBuf>,
    /// The project's root.
    pub project: PathBuf,
}

struct Row {
    client: Client,
    id: &'static str,
    title: &'static str,
    format: Format,
    user: fn(&Machine) -> PathBuf,
    project: Option<&'static str>,
}

const SERVERS: Format = json("mcpServers", None);
const TYPED_SERVERS: Format = json("mcpServers", Some(("type", "stdio")));

const TABLE: [Row; 8] = [
    // https://modelcontextprotocol.io/quickstart/user: macOS and Windows. Linux has no documented
    // place; this is the one of the builds that there are.
    Row {
        client: Client::ClaudeDesktop,
        id: "claude-desktop",
        title: "Claude Desktop",
        format: SERVERS,
        user: |machine| machine.applications().join("Claude").join("claude_desktop_config.json"),
        project: None,
    },
    // https://code.claude.com/docs/en/mcp#mcp-installation-scopes: user and project scope.
    // CLAUDE_CONFIG_DIR: https://code.claude.com/docs/en/env-vars.
    Row {
        client: Client::ClaudeCode,
        id: "claude-code",
        title: "Claude Code",
        format: TYPED_SERVERS,
        user: |machine| {
            machine.claude_config.as_deref().unwrap_or(&machine.home).join(".claude.json")
        },
        project: Some(".mcp.json"),
    },
    // https://cursor.com/docs/mcp: global and project file.
    Row {
        client: Client::Cursor,
        id: "cursor",
        title: "Cursor",
        format: TYPED_SERVERS,
        user: |machine| machine.home.join(".cursor").join("mcp.json"),
        project: Some(".cursor/mcp.json"),
    },
    // https://code.visualstudio.com/docs/copilot/reference/mcp-configuration: `servers`, `type`
    // required; the user's file is in the default profile's folder, beside settings.json.
    Row {
        client: Client::VsCode,
        id: "vscode",
        title: "VS Code",
        format: json("servers", Some(("type", "stdio"))),
        user: |machine| machine.applications().join("Code").join("User").join("mcp.json"),
        project: Some(".vscode/mcp.json"),
    },
    // https://docs.windsurf.com/windsurf/cascade/mcp: one file, no project file.
    Row {
        client: Client::Windsurf,
        id: "windsurf",
        title: "Windsurf",
        format: SERVERS,
        user: |machine| machine.home.join(".codeium").join("windsurf").join("mcp_config.json"),
        project: None,
    },
    // https://zed.dev/docs/ai/mcp and https://zed.dev/docs/configuring-zed. `source` is from the
    // earlier documentation: versions of 2025 demand it, later ones do not mind it.
    Row {
        client: Client::Zed,
        id: "zed",
        title: "Zed",
        format: json("context_servers", Some(("source", "custom"))),
        user: |machine| match machine.system {
            System::Windows => machine.applications().join("Zed").join("settings.json"),
            System::MacOs => machine.home.join(".config").join("zed").join("settings.json"),
            System::Linux => machine.applications().join("zed").join("settings.json"),
        },
        project: Some(".zed/settings.json"),
    },
    // https://geminicli.com/docs/cli/configuration and /docs/tools/mcp-server.
    Row {
        client: Client::GeminiCli,
        id: "gemini-cli",
        title: "Gemini CLI",
        format: SERVERS,
        user: |machine| machine.home.join(".gemini").join("settings.json"),
        project: Some(".gemini/settings.json"),
    },
    // https://developers.openai.com/codex/mcp: the project's file counts in trusted projects only.
    Row {
        client: Client::Codex,
        id: "codex",
        title: "Codex",
        format: Format::Toml("mcp_servers"),
        user: |machine| match &machine.codex_home {
            Some(home) => home.join("config.toml"),
            None => machine.home.join(".codex").join("config.toml"),
        },
        project: Some(".codex/config.toml"),
    },
];

const fn json(container: &'static str, first: Option<(&'static str, &'static str)>) -> Format {
    Format::Json(Shape { container, first })
}

impl Client {
    /// Every client, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.client)
    }

    fn row(self) -> &'static Row {
        let [first, rest @ ..] = &TABLE;
        rest.iter().find(|row| row.client == self).unwrap_or(first)
    }

    /// The name on the command line.
    pub fn id(self) -> &'static str {
        self.row().id
    }

    /// The name that its maker gave it.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// How its file is written.
    pub fn format(self) -> Format {
        self.row().format
    }

    /// Its file; `None` for a project's file where it knows none.
    pub fn file(self, machine: &Machine, scope: Scope) -> Option<PathBuf> {
        let row = self.row();
        match scope {
            Scope::User => Some((row.user)(machine)),
            Scope::Project => row.project.map(|path| machine.project.join(path)),
        }
    }

    /// A path that is there once the client has been used on the machine.
    pub fn sign(self, machine: &Machine) -> PathBuf {
        let file = (self.row().user)(machine);
        match self {
            // Its file is in the home directory itself.
            Self::ClaudeCode => match &machine.claude_config {
                Some(directory) => directory.clone(),
                None => machine.home.join(".claude"),
            },
            _ => file.parent().map(Path::to_owned).unwrap_or(file),
        }
    }
}

impl FromStr for Client {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        TABLE
            .iter()
            .find(|row| row.id == text)
            .map(|row| row.client)
            .ok_or_else(|| InvalidText { what: "client", why: format!("{text:?} is not known") })
    }
}

impl Scope {
    /// The name on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Project => "project",
        }
    }
}

impl System {
    /// The system that this program was built for.
    pub const HERE: Self = if cfg!(windows) {
        Self::Windows
    } else if cfg!(target_os = "macos") {
        Self::MacOs
    } else {
        Self::Linux
    };
}

impl Machine {
    /// Where applications keep their settings.
    fn applications(&self) -> PathBuf {
        match self.system {
            System::MacOs => self.home.join("Library").join("Application Support"),
            System::Windows => {
                self.app_data.clone().unwrap_or_else(|| self.home.join("AppData").join("Roaming"))
            }
            System::Linux => self.xdg_config.clone().unwrap_or_else(|| self.home.join(".config")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(system: System) -> Machine {
        Machine {
            system,
            home: "/h".into(),
            app_data: None,
            xdg_config: None,
            claude_config: None,
            codex_home: None,
            project: "/p".into(),
        }
    }

    fn user(client: Client, machine: &Machine) -> String {
        let path = client.file(machine, Scope::User).unwrap();
        path.to_str().unwrap().replace('\\', "/")
    }

    #[test]
    fn files_are_where_the_clients_look() {
        use Client::*;
        use System::*;
        for (client, system, path) in [
            (ClaudeDesktop, Linux, "/h/.config/Claude/claude_desktop_config.json"),
            (
                ClaudeDesktop,
                MacOs,
                "/h/Library/Application Support/Claude/claude_desktop_config.json",
            ),
            (ClaudeDesktop, Windows, "/h/AppData/Roaming/Claude/claude_desktop_config.json"),
            (ClaudeCode, MacOs, "/h/.claude.json"),
            (Cursor, Windows, "/h/.cursor/mcp.json"),
            (VsCode, Linux, "/h/.config/Code/User/mcp.json"),
            (VsCode, MacOs, "/h/Library/Application Support/Code/User/mcp.json"),
            (VsCode, Windows, "/h/AppData/Roaming/Code/User/mcp.json"),
            (Windsurf, Linux, "/h/.codeium/windsurf/mcp_config.json"),
            (Zed, Linux, "/h/.config/zed/settings.json"),
            (Zed, MacOs, "/h/.config/zed/settings.json"),
            (Zed, Windows, "/h/AppData/Roaming/Zed/settings.json"),
            (GeminiCli, Linux, "/h/.gemini/settings.json"),
            (Codex, Linux, "/h/.codex/config.toml"),
        ] {
            assert_eq!(user(client, &machine(system)), path, "{client:?} on {system:?}");
        }
    }

    #[test]
    fn variables_move_files_as_they_do_for_the_clients() {
        let mut here = machine(System::Linux);
        here.xdg_config = Some("/x".into());
        here.claude_config = Some("/c".into());
        here.codex_home = Some("/o".into());
        assert_eq!(user(Client::Zed, &here), "/x/zed/settings.json");
        assert_eq!(user(Client::VsCode, &here), "/x/Code/User/mcp.json");
        assert_eq!(user(Client::ClaudeCode, &here), "/c/.claude.json");
        assert_eq!(user(Client::Codex, &here), "/o/config.toml");
        here.system = System::MacOs;
        assert_eq!(user(Client::Zed, &here), "/h/.config/zed/settings.json");
    }

    #[test]
    fn every_row_can_be_named_and_no_two_share_a_file() {
        let here = machine(System::Linux);
        let mut files = std::collections::BTreeSet::new();
        for client in Client::all() {
            assert_eq!(client.id().parse::<Client>().unwrap(), client);
            for scope in [Scope::User, Scope::Project] {
                let Some(file) = client.file(&here, scope) else { continue };
                assert!(files.insert(file), "{client:?}");
            }
        }
        assert!("emacs".parse::<Client>().is_err());
        assert!(Client::Windsurf.file(&here, Scope::Project).is_none());
    }
}
