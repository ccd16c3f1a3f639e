"""Writes Envoy's configuration: identities by SDS from a node's socket, one listener that asks for peers', two that show its own.

The program itself is Envoy as its wheel brings it; nothing here runs inside it.
"""

from typing import Any

_SDS = {
    "resource_api_version": "V3",
    "api_config_source": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "node"}}],
    },
}
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def configuration(
    *, socket: str, inward: int, outward: int, workers_port: int, controller: str, onward: int, upstream_port: int, upstream: str
) -> dict[str, Any]:
    """Return a whole configuration.

    inward    port that speaks mTLS and tells whom it met (header x-peer)
    outward   plain port on loopback, forwarded with mTLS to a controller's port for workers
    onward    plain port on loopback, forwarded with mTLS to `upstream_port`, where the SPIFFE ID `upstream` must answer
    """
    return {
        "node": {"id": "judge", "cluster": "judge"},
        "static_resources": {
            "listeners": [
                _listener("inward", inward, _told(), _server_tls()),
                _listener("outward", outward, {"route": {"cluster": "controller"}}, None),
                _listener("onward", onward, _forwarded("upstream"), None),
            ],
            "clusters": [
                _cluster("node", {"pipe": {"path": socket}}, http2=True),
                _cluster("controller", _address(workers_port), tls=_client_tls(controller)),
                _cluster("upstream", _address(upstream_port), tls=_client_tls(upstream)),
            ],
        },
    }


def _told() -> dict[str, Any]:
    header = {"header": {"key": "x-peer", "value": "%DOWNSTREAM_PEER_URI_SAN%"}}
    return {"direct_response": {"status": 200}, "response_headers_to_add": [header]}


def _forwarded(cluster: str) -> dict[str, Any]:
    # Why TLS with the upstream failed: Envoy's own answer says only that it did.
    header = {"header": {"key": "x-failure", "value": "%UPSTREAM_TRANSPORT_FAILURE_REASON%"}}
    return {"route": {"cluster": cluster}, "response_headers_to_add": [header]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(name: str, port: int, route: dict[str, Any], tls: dict[str, Any] | None) -> dict[str, Any]:
    http = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]
        },
    }
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": http}]}
    if tls is not None:
        chain["transport_socket"] = {"name": "tls", "typed_config": tls}
    return {"name": name, "address": _address(port), "filter_chains": [chain]}


def _cluster(
    name: str, address: dict[str, Any], *, http2: bool = False, tls: dict[str, Any] | None = None
) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if http2:
        options = {"@type": _HTTP, "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    if tls is not None:
        cluster["transport_socket"] = {"name": "tls", "typed_config": tls}
    return cluster


def _common(roots: str, expected: dict[str, Any]) -> dict[str, Any]:
    matcher = {"san_type": "URI", "matcher": expected}
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": _SDS}],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [matcher]},
            "validation_context_sds_secret_config": {"name": roots, "sds_config": _SDS},
        },
    }


def _server_tls() -> dict[str, Any]:
    return {
        "@type": f"{_TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _common("ALL", {"prefix": "spiffe://"}),
    }


def _client_tls(expected: str) -> dict[str, Any]:
    return {"@type": f"{_TLS}UpstreamTlsContext", "common_tls_context": _common("ROOTCA", {"exact": expected})}
