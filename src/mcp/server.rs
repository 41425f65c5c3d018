//! The adapter as an MCP server: who it is, which tools it lists, and where a call goes. `rmcp` answers
//! both eras of the protocol, `initialize` (2024-11-05 to 2025-11-25) and `server/discover` (2026-07-28).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, ErrorCode, ErrorData,
    Implementation, InitializeRequestParams, InitializeResult, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};

use super::session::BrokerSession;
use super::tools;

const INSTRUCTIONS: &str = "\
These tools give you the credentials and the identity that were set aside for you. Start with \
broker_whoami to see who you are and what you may do, and with passwords_list or secrets_list to see what \
there is; both show names only. Fetch a value with passwords_get or secrets_get at the moment you need \
it, and do not repeat it in your answers, in files or in commands that are logged. Every use is recorded. \
If a tool refuses, its answer says why and what to do next; do not try to work around it.";

/// The server.
pub(super) struct Adapter {
    session: Arc<BrokerSession>,
    established: Arc<AtomicBool>,
}

impl Adapter {
    pub(super) fn new(session: Arc<BrokerSession>) -> Self {
        Self { session, established: Arc::default() }
    }

    /// Set once the protocol's opening is over.
    pub(super) fn established(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.established)
    }

    fn establish(&self) {
        self.established.store(true, Ordering::Relaxed);
    }
}

impl ServerHandler for Adapter {
    fn get_info(&self) -> ServerConfig {
        let name =
            Implementation::new("ravi-broker-mcp", env!("CARGO_PKG_VERSION")).with_title("Ravi broker");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(name)
            .with_instructions(INSTRUCTIONS)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let result = self.negotiate_initialize(&request);
        self.establish();
        result
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.establish();
        Ok(ListToolsResult::with_all_items(tools::list()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.establish();
        let called = tools::call(&self.session, &request.name, request.arguments.unwrap_or_default());
        let result = tokio::select! {
            result = called => result,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
        };
        let unknown = || ErrorData::invalid_params("there is no such tool; see tools/list", None);
        result.map(CallToolResponse::from).ok_or_else(unknown)
    }

    /// What `rmcp` could not read as one of the protocol's requests.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        if matches!(request.method.as_str(), "initialize" | "tools/list" | "tools/call") {
            return Err(ErrorData::invalid_params("the parameters do not fit the method", None));
        }
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "there is no such method", None))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::list().into_iter().find(|tool| tool.name == name)
    }
}
