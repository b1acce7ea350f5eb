//! What is run: which way a call takes to its tool, in which era, over which transport.

use super::payload::Payload;

/// How a call reaches the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Straight.
    Direct,
    /// Through nginx as a plain reverse proxy.
    Nginx,
    /// Through `mcpx serve`, with a proof for each request.
    Gateway,
    /// Through `mcpx connect`'s local port, then `mcpx serve`.
    Connect,
}

pub const WAYS: [Way; 4] = [Way::Direct, Way::Nginx, Way::Gateway, Way::Connect];

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Gateway => "gateway",
            Self::Connect => "connect",
        }
    }

    /// Whether mcpx is on it.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Gateway | Self::Connect)
    }
}

/// MCP's two eras.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Era {
    /// 2025-11-25: a handshake, then a session.
    Legacy,
    /// 2026-07-28: every request says everything.
    Modern,
}

/// How the upstream is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    Http,
    /// A child process: of the gateway, or of this program for the direct way.
    Stdio,
}

impl Reach {
    /// The connection's name.
    pub fn connection(self) -> &'static str {
        match self {
            Self::Http => "bench",
            Self::Stdio => "child",
        }
    }
}

/// Era and transport: what a session is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub era: Era,
    pub reach: Reach,
}

/// The one that everything is measured on.
pub const BASE: Route = Route { era: Era::Legacy, reach: Reach::Http };

pub const ROUTES: [Route; 4] = [
    BASE,
    Route { era: Era::Modern, reach: Reach::Http },
    Route { era: Era::Legacy, reach: Reach::Stdio },
    Route { era: Era::Modern, reach: Reach::Stdio },
];

impl Route {
    pub fn name(self) -> &'static str {
        match (self.era, self.reach) {
            (Era::Legacy, Reach::Http) => "legacy-http",
            (Era::Modern, Reach::Http) => "modern-http",
            (Era::Legacy, Reach::Stdio) => "legacy-stdio",
            (Era::Modern, Reach::Stdio) => "modern-stdio",
        }
    }

    /// nginx speaks no stdio, and a child no event streams.
    pub fn has(self, way: Way, payload: Payload) -> bool {
        self.reach == Reach::Http || (way != Way::Nginx && !payload.is_stream())
    }
}

/// What tokens are bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// A key, with a proof for each request, over plain HTTP.
    Key,
    /// The certificate of the connection: gateway and nginx speak TLS.
    Certificate,
}

pub const BOUNDS: [Bound; 2] = [Bound::Key, Bound::Certificate];

impl Bound {
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "dpop",
            Self::Certificate => "cert",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Self::Key => "a key, with a proof for each request; plain HTTP",
            Self::Certificate => "the connection's certificate; gateway and nginx over TLS",
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    pub route: Route,
    pub payload: Payload,
    pub sessions: usize,
    pub way: Way,
}
