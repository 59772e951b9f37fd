//! What `proto` files say: methods, their messages, and which methods a chain covers.

mod load;

use std::rc::Rc;

use abi::MethodMatch;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};

pub(crate) use load::Protos;

/// Every method that the application's `proto` files know.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    methods: Vec<Rc<Method>>,
    /// What they are made of.
    pub(crate) pool: DescriptorPool,
}

/// One method of a proto.
#[derive(Debug)]
pub(crate) struct Method {
    /// `pkg.Service`.
    pub(crate) service: String,
    /// `Method`.
    pub(crate) name: String,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
    pub(crate) request_streams: bool,
    pub(crate) response_streams: bool,
}

/// Which message of a method is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl Method {
    fn new(method: &MethodDescriptor) -> Self {
        Self {
            service: method.parent_service().full_name().to_owned(),
            name: method.name().to_owned(),
            input: method.input(),
            output: method.output(),
            request_streams: method.is_client_streaming(),
            response_streams: method.is_server_streaming(),
        }
    }

    /// `pkg.Service/Method`.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.service, self.name)
    }

    /// The message of a direction.
    pub(crate) fn message(&self, direction: Direction) -> &MessageDescriptor {
        match direction {
            Direction::Request => &self.input,
            Direction::Response => &self.output,
        }
    }

    /// Any number of messages travel in this direction.
    pub(crate) fn streams(&self, direction: Direction) -> bool {
        match direction {
            Direction::Request => self.request_streams,
            Direction::Response => self.response_streams,
        }
    }
}

impl Schema {
    /// The methods of every service of a pool.
    pub(crate) fn new(pool: DescriptorPool) -> Self {
        let mut methods: Vec<Rc<Method>> = pool
            .services()
            .flat_map(|s| s.methods().map(|m| Rc::new(Method::new(&m))).collect::<Vec<_>>())
            .collect();
        methods.sort_by(|a, b| (&a.service, &a.name).cmp(&(&b.service, &b.name)));
        Self { methods, pool }
    }

    /// The methods a rule's key means, by service and name.
    pub(crate) fn matching(&self, key: &MethodMatch) -> Vec<Rc<Method>> {
        self.methods
            .iter()
            .filter(|m| match key {
                MethodMatch::Any => !abi::Program::is_reserved(&m.service),
                MethodMatch::Service(service) => *service == m.service,
                MethodMatch::Method(service, method) => *service == m.service && *method == m.name,
            })
            .cloned()
            .collect()
    }

    /// `pkg.Service/Method` of every method.
    pub(crate) fn paths(&self) -> impl Iterator<Item = String> + '_ {
        self.methods.iter().map(|m| m.path())
    }
}

/// The methods one chain covers, as far as anybody says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    /// Those that a proto knows, by service and name.
    pub(crate) methods: Vec<Rc<Method>>,
    /// As the rule names them: `every method`, `shop.Catalog/*`, `shop.Catalog/Get`.
    pub(crate) named: String,
    /// What is like `named` among the methods that the protos know, where they do not know it.
    pub(crate) near: Option<String>,
    /// `unary:` of the destination says so of all it means.
    pub(crate) is_unary: bool,
    /// Calls of other methods than `methods` never come: the rule names one method, and it is known.
    pub(crate) is_exact: bool,
}

impl Coverage {
    /// What makes two chains of the same links the same chain.
    pub(crate) fn key(&self) -> (Vec<String>, bool, bool) {
        (self.methods.iter().map(|m| m.path()).collect(), self.is_unary, self.is_exact)
    }
}
