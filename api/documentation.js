"use strict";

// Text only ever enters the page as text: nothing of the document is read as markup.
function element(tag, attributes, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function typeOf(schema) {
  if (!schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return `[${typeOf(schema.items)}]`;
  const least = schema.minLength ?? schema.minimum;
  const most = schema.maxLength ?? schema.maximum;
  const bounds = least ?? most ?? null;
  return bounds === null ? schema.type : `${schema.type} ${least ?? ""}..${most ?? ""}`;
}

function table(rows) {
  return element("table", {}, ...rows.map((cells) =>
    element("tr", {}, ...cells.map((cell) => element("td", {}, cell)))));
}

function fields(schema, schemas) {
  const named = schema.$ref ? schemas[schema.$ref.split("/").pop()] : schema;
  if (!named || !named.properties) return element("code", {}, typeOf(schema));
  const required = new Set(named.required ?? []);
  return table(Object.entries(named.properties).map(([name, field]) => [
    element("code", {}, required.has(name) ? name : `${name}?`),
    element("code", { className: "dim" }, typeOf(field)),
    field.description ?? "",
  ]));
}

function section(title, content) {
  return element("div", { style: "border: 0; padding: 0" }, element("h4", {}, title), content);
}

function operation(method, path, described, schemas) {
  const body = element("div", {});
  body.append(element("p", {}, described.description ?? ""));
  const parameters = described.parameters ?? [];
  if (parameters.length) {
    body.append(section("Parameters", table(parameters.map((parameter) => [
      element("code", {}, parameter.required ? parameter.name : `${parameter.name}?`),
      element("span", { className: "dim" }, parameter.in),
      element("code", { className: "dim" }, typeOf(parameter.schema)),
      parameter.description ?? "",
    ]))));
  }
  const sent = described.requestBody?.content?.["application/json"]?.schema;
  if (sent) body.append(section("Body", fields(sent, schemas)));
  for (const [status, answer] of Object.entries(described.responses)) {
    const schema = answer.content?.["application/json"]?.schema;
    if (status.startsWith("2")) {
      body.append(section(`Answer ${status}`, schema ? fields(schema, schemas) : "No body."));
    }
  }
  const failures = Object.keys(described.responses).filter((status) => !status.startsWith("2"));
  if (failures.length) body.append(section("Fails with", failures.join(", ")));
  return element("details", {},
    element("summary", {},
      element("span", { className: "method" }, method.toUpperCase()),
      element("span", { className: "path" }, path),
      element("span", { className: "dim" }, `  ${described.summary ?? ""}`)),
    body);
}

async function read(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the API answered ${answer.status}`);
  return answer.json();
}

async function show() {
  const found = await read("openapi.json");
  const schemas = found.components?.schemas ?? {};
  const groups = new Map();
  for (const [path, operations] of Object.entries(found.paths)) {
    for (const [method, described] of Object.entries(operations)) {
      const tag = described.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), operation(method, path, described, schemas)]);
    }
  }
  const main = document.getElementById("operations");
  main.replaceChildren();
  for (const [tag, shown] of groups) main.append(element("h2", {}, tag), ...shown);
}

show().catch((error) => {
  document.getElementById("operations").replaceChildren(element("p", { role: "alert" },
    `openapi.json could not be read: ${error.message}. Load the page again to repeat.`));
});
