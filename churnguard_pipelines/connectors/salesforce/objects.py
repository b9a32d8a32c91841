"""Salesforce's standard objects that every account has, with the columns that are declared of them.

Columns are named as the field in lower case with underscores: ``AccountId`` is ``account_id``. All else that an account
has, its own fields and objects too, is found by :mod:`.describe`. Facts are the object reference's:
https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/
"""

from __future__ import annotations

import re

from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.records import TIMESTAMP, Column, ColumnType

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

CUSTOM_COLUMNS = tuple(
    Column(name, TIMESTAMP, path)
    for name, path in (
        ("created_date", "CreatedDate"),
        ("last_modified_date", "LastModifiedDate"),
        ("system_modstamp", "SystemModstamp"),
    )
)
"""Of what an account added, and of standard objects that are not declared here: most have them."""

CREATED, MODIFIED = "created_date", "system_modstamp"


def snake(name: str) -> str:
    """``OpportunityLineItem`` -> ``opportunity_line_item``."""
    return _WORD.sub("_", name).lower()


def custom(name: str, label: str | None) -> Object:
    return Object(
        name, name, CUSTOM_COLUMNS, created_column=CREATED, modified_column=MODIFIED, label=label, custom=True
    )


def _object(name: str, **kinds: str) -> Object:
    declared = [
        Column(snake(field), ColumnType[kind], field) for kind, fields in kinds.items() for field in fields.split()
    ]
    common = [column for column in CUSTOM_COLUMNS if column.name not in {each.name for each in declared}]
    return Object(name, name, (*declared, *common), created_column=CREATED, modified_column=MODIFIED)


OBJECTS = (
    _object(
        "Account",
        TEXT="Name Type Industry ParentId OwnerId RecordTypeId Website Phone BillingCity BillingState "
        "BillingPostalCode BillingCountry AccountSource Rating Ownership AccountNumber Description MasterRecordId",
        NUMERIC="AnnualRevenue", BIGINT="NumberOfEmployees", DATE="LastActivityDate",
    ),
    _object(
        "Contact",
        TEXT="AccountId OwnerId RecordTypeId FirstName LastName Name Email Title Department Phone MobilePhone "
        "LeadSource ReportsToId MailingCity MailingState MailingPostalCode MailingCountry MasterRecordId",
        TIMESTAMP="EmailBouncedDate", BOOLEAN="HasOptedOutOfEmail", DATE="LastActivityDate Birthdate",
    ),
    _object(
        "Lead",
        TEXT="OwnerId RecordTypeId FirstName LastName Name Company Email Title Phone Website Status LeadSource "
        "Industry Rating City State PostalCode Country ConvertedAccountId ConvertedContactId ConvertedOpportunityId "
        "MasterRecordId",
        NUMERIC="AnnualRevenue", BIGINT="NumberOfEmployees", BOOLEAN="IsConverted HasOptedOutOfEmail",
        DATE="ConvertedDate LastActivityDate",
    ),
    _object(
        "Opportunity",
        TEXT="AccountId OwnerId RecordTypeId CampaignId ContractId Pricebook2Id Name StageName Type LeadSource "
        "NextStep ForecastCategory ForecastCategoryName FiscalQuarterName CurrencyIsoCode",
        NUMERIC="Amount ExpectedRevenue Probability TotalOpportunityQuantity",
        BOOLEAN="IsClosed IsWon HasOpportunityLineItem", DATE="CloseDate LastActivityDate",
        TIMESTAMP="LastStageChangeDate",
    ),
    _object(
        "Case",
        TEXT="CaseNumber AccountId ContactId OwnerId RecordTypeId ParentId Subject Status Priority Origin Type Reason "
        "SuppliedEmail Description",
        BOOLEAN="IsClosed IsEscalated", TIMESTAMP="ClosedDate",
    ),
    _object(
        "Task",
        TEXT="WhoId WhatId AccountId OwnerId Subject Status Priority Type TaskSubtype CallType CallDisposition "
        "Description",
        BIGINT="CallDurationInSeconds", BOOLEAN="IsClosed IsHighPriority IsArchived", DATE="ActivityDate",
        TIMESTAMP="CompletedDateTime",
    ),
    _object(
        "Event",
        TEXT="WhoId WhatId AccountId OwnerId Subject Location Type EventSubtype ShowAs Description",
        BIGINT="DurationInMinutes", BOOLEAN="IsAllDayEvent IsPrivate IsArchived", DATE="ActivityDate",
        TIMESTAMP="ActivityDateTime StartDateTime EndDateTime",
    ),
    _object(
        "User",
        TEXT="Username Name FirstName LastName Email Title Department Division UserRoleId ProfileId ManagerId UserType "
        "TimeZoneSidKey",
        BOOLEAN="IsActive", TIMESTAMP="LastLoginDate",
    ),
    _object(
        "OpportunityLineItem",
        TEXT="OpportunityId Product2Id PricebookEntryId Name ProductCode Description CurrencyIsoCode",
        NUMERIC="Quantity UnitPrice ListPrice TotalPrice Discount", DATE="ServiceDate",
    ),
    _object("OpportunityContactRole", TEXT="OpportunityId ContactId Role", BOOLEAN="IsPrimary"),
    _object(
        "OpportunityFieldHistory",
        TEXT="OpportunityId CreatedById Field DataType OldValue NewValue",
    ),
    _object(
        "Campaign",
        TEXT="Name Type Status ParentId OwnerId RecordTypeId Description",
        NUMERIC="BudgetedCost ActualCost ExpectedRevenue NumberSent ExpectedResponse AmountAllOpportunities "
        "AmountWonOpportunities",
        BIGINT="NumberOfLeads NumberOfConvertedLeads NumberOfContacts NumberOfResponses NumberOfOpportunities "
        "NumberOfWonOpportunities",
        BOOLEAN="IsActive", DATE="StartDate EndDate",
    ),
    _object(
        "CampaignMember",
        TEXT="CampaignId LeadId ContactId LeadOrContactId Status Type Name Email CompanyOrAccount LeadSource",
        BOOLEAN="HasResponded", DATE="FirstRespondedDate",
    ),
    _object(
        "Product2",
        TEXT="Name ProductCode Family Description StockKeepingUnit ExternalId QuantityUnitOfMeasure",
        BOOLEAN="IsActive IsArchived",
    ),
    _object(
        "Contract",
        TEXT="AccountId OwnerId RecordTypeId ContractNumber Status StatusCode OwnerExpirationNotice Description "
        "CustomerSignedId CompanySignedId",
        BIGINT="ContractTerm", DATE="StartDate EndDate CustomerSignedDate CompanySignedDate LastActivityDate",
        TIMESTAMP="ActivatedDate LastApprovedDate",
    ),
    _object(
        "RecordType",
        TEXT="Name DeveloperName NamespacePrefix Description BusinessProcessId SobjectType", BOOLEAN="IsActive",
    ),
)  # fmt: skip
