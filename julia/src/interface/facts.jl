# What Python has to know of the core before Julia runs: names, defaults, sentences. pymlpgf/facts.json is this text
# (`make facts` writes it, a test compares it), so that each fact is written once, where it belongs.

"The facts as JSON, one line each."
function facts()
    methods(registry, kinds) = Pair{String,Any}[
        [name => described(registry.entries[name], "builtin") for name in registry.names];
        ["$kind.$name" => described(Entry(nothing, "of $(p.package)", p.matrices, ""), kind)
         for kind in kinds for p in PROVIDED[kind] for name in p.methods]]
    sections = [
        "activations" => [name => ACTIVATIONS.entries[name].summary for name in ACTIVATIONS.names],
        "limits" => ["tail" => names_where(has_tail), "step" => names_where(is_sigmoidal),
                     "relu" => names_where(is_ramp), "kink" => names_where(f -> f isa Union{Relu,Selu})],
        "losses" => [name => LOSSES.entries[name].summary for name in LOSSES.names],
        "flow_methods" => methods(FLOW_METHODS, FLOW_PROVIDERS),
        "discrete_methods" => [name => discrete_facts(name) for name in DISCRETE_METHODS.names],
        "minimizers" => methods(MINIMIZE_METHODS, MINIMIZE_PROVIDERS),
        "flow_options" => ["alg" => name_of(FLOW_METHODS, FlowOptions().alg); defaults(FlowOptions)],
        "minimize_options" => ["optim_solver" => name_of(MINIMIZE_METHODS, MinimizeOptions().optim_solver);
                               defaults(MinimizeOptions)],
        "stops" => [string(reason) => Stop.advice(reason)
                    for reason in instances(Stop.Reason) if reason != Stop.running],
    ]
    io = IOBuffer()
    print(io, "{")
    for (k, (section, items)) in enumerate(sections)
        print(io, k > 1 ? ",\n" : "\n", "  \"", section, "\": {")
        for (m, (name, value)) in enumerate(items)
            print(io, m > 1 ? ",\n" : "\n", "    ", to_json(name), ": ", to_json(value))
        end
        print(io, "\n  }")
    end
    print(io, "\n}\n")
    return String(take!(io))
end

name_of(registry::Registry, method) = first(name for name in registry.names if registry[name] == method)

function described(entry::Entry, provider)
    facts = Pair{String,Any}["summary" => entry.summary, "matrices" => entry.matrices, "provider" => provider]
    isempty(entry.when) || push!(facts, "when" => entry.when)
    return facts
end

"Numbers and flags that a method or a struct of options has unless it is told otherwise, by their names in `train`."
function defaults(::Type{O}) where {O}
    default = O()
    plain(value) = value isa Union{Real,Tuple{Real,Vararg{Real}}}
    value(name) = get(PHASE_LIMITS, phase_name(O, name), getfield(default, name))
    return Pair{String,Any}[string(phase_name(O, name)) => value(name) for name in fieldnames(O) if plain(value(name))]
end
discrete_facts(name) =
    ["summary" => DISCRETE_METHODS.entries[name].summary, "options" => defaults(DISCRETE_METHODS[name])]
