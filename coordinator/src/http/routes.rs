//! A table of routes that can be read back, so that what is served can be held against what is documented.

use std::collections::BTreeMap;

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, Resource, Responder, Route};

/// Routes by path. A path may serve several methods, each once.
#[derive(Default)]
pub(super) struct Routes {
    resources: BTreeMap<&'static str, Resource>,
    served: Vec<(Method, &'static str)>,
}

impl Routes {
    pub(super) fn get<F, Args>(self, path: &'static str, handler: F) -> Self
    where
        F: Handler<Args, Output: Responder + 'static>,
        Args: FromRequest + 'static,
    {
        self.add(Method::GET, path, web::get().to(handler))
    }

    pub(super) fn post<F, Args>(self, path: &'static str, handler: F) -> Self
    where
        F: Handler<Args, Output: Responder + 'static>,
        Args: FromRequest + 'static,
    {
        self.add(Method::POST, path, web::post().to(handler))
    }

    pub(super) fn put<F, Args>(self, path: &'static str, handler: F) -> Self
    where
        F: Handler<Args, Output: Responder + 'static>,
        Args: FromRequest + 'static,
    {
        self.add(Method::PUT, path, web::put().to(handler))
    }

    pub(super) fn delete<F, Args>(self, path: &'static str, handler: F) -> Self
    where
        F: Handler<Args, Output: Responder + 'static>,
        Args: FromRequest + 'static,
    {
        self.add(Method::DELETE, path, web::delete().to(handler))
    }

    fn add(mut self, method: Method, path: &'static str, route: Route) -> Self {
        let resource = self.resources.remove(path).unwrap_or_else(|| web::resource(path));
        self.resources.insert(path, resource.route(route));
        self.served.push((method, path));
        self
    }

    /// Has the service serve them.
    pub(super) fn register(self, service: &mut ServiceConfig) {
        for resource in self.resources.into_values() {
            service.service(resource);
        }
    }

    /// Method and path of every route.
    #[cfg(test)]
    pub(super) fn served(&self) -> &[(Method, &'static str)] {
        &self.served
    }
}
