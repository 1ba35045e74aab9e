# Decisions about actions of playbooks. The same file runs in OPA and in llm-im (playbooks.policy.files).
package incidents

import rego.v1

default allowed := false

default require_approval := false

known_kinds := {"Restart", "ScaleHorizontal", "Rollback"}

allowed if {
	input.proposed_action.type in known_kinds
	not frozen
}

# A P0 may be repaired at any hour; nothing else while the service is frozen.
frozen if {
	input.incident.severity != "P0"
	input.proposed_action.target_service in data.frozen_services
}

require_approval if {
	input.context.environment == "prod"
	input.proposed_action.type == "Rollback"
}

approvers contains name if {
	require_approval
	some name in data.approvers
}

constraints["max_replicas"] := 5 if input.proposed_action.type == "ScaleHorizontal"

constraints["timeout"] := {"max": 120} if input.proposed_action.type == "Restart"

reason := "a known repair" if allowed

reason := sprintf("%s is frozen", [input.proposed_action.target_service]) if frozen

reason := sprintf("%s is no repair we allow", [input.proposed_action.type]) if {
	not input.proposed_action.type in known_kinds
	not frozen
}
