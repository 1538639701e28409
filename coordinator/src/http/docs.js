"use strict";
// Relative to the page. Without `validatorUrl: null` the address of this service would be sent to a server elsewhere.
SwaggerUIBundle({
  url: "v1/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
  validatorUrl: null,
});
