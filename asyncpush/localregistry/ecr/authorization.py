"""GetAuthorizationToken: the operation that concerns a registry as a whole."""

from __future__ import annotations

import base64
from typing import Any

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.identity import ACCOUNT, Registry
from asyncpush.localregistry.params import Params, check_text


async def get_authorization_token(call: Call, params: Params) -> dict[str, Any]:
    """Give a token for ``/v2/``, one for each registry that is asked for."""
    accounts = params.items("registryIds", str, 10) or [call.registry.account]
    for account in accounts:
        check_text("registryIds", account, ACCOUNT.pattern)
    call.authorize("GetAuthorizationToken")
    services = call.services
    expires = int(services.options.clock() + services.options.token_lifetime)
    data = []
    for account in accounts:
        registry = Registry(account, call.registry.region)
        password = services.tokens.issue_password(call.key.access_key_id, registry, expires)
        data.append(
            {
                "authorizationToken": base64.b64encode(f"AWS:{password}".encode()).decode(),
                "expiresAt": expires,
                "proxyEndpoint": services.url(),
            }
        )
    return {"authorizationData": data}
