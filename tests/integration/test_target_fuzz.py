"""The JSON interface against its own OpenAPI document: what is sent at random is answered as the document says."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.integration.opened_sale import Stores
from tests.integration.served_sale import Service, serving


@pytest.fixture(scope="module")
def service(places: Stores) -> Iterator[Service]:
    with serving(places) as served:
        yield served


@pytest.fixture(scope="module")
def document(service: Service) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


api = schemathesis.pytest.from_fixture("document")


@api.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_describes(case: Case, service: Service) -> None:
    # What the schema can't say is refused as well: an address that is none, a key that has been used.
    case.call_and_validate(
        headers={"Authorization": f"Bearer {service.token}"},
        excluded_checks=[negative_data_rejection, positive_data_acceptance],
    )
