# Whose method runs: our own, or one of a package that is loaded, through an extension (julia/ext).

"""
    flow_method(alg) -> FlowMethod

The method that [`flow`](@ref) runs for what the user gave as `alg`. Extensions add methods of this function.
"""
flow_method(alg::FlowMethod) = alg
flow_method(alg) =
    throw(ArgumentError("alg is a $(typeof(alg)); a method such as Rodas5P(), or, on Julia 1.9 and newer, an " *
                        "algorithm of OrdinaryDiffEq or Sundials is needed"))

"""
    minimize_method(optim_solver) -> MinimizeMethod

The method that [`minimize`](@ref) runs for what the user gave as `optim_solver`. Extensions add methods of this
function.
"""
minimize_method(solver::MinimizeMethod) = solver
minimize_method(solver) =
    throw(ArgumentError("optim_solver is a $(typeof(solver)); a method such as NewtonTrustRegion(), or, on Julia 1.9 " *
                        "and newer, one of Optim or an algorithm of NLopt is needed"))

"A method of Optim or NLopt with options of its package, by name; our own have theirs as arguments."
function with_options(method::MinimizeMethod, options)
    isempty(options)::Bool ||
        throw(ArgumentError("optim_options are for methods of Optim and NLopt; $(method_name(method)) is our own"))
    return method
end
named_options(options) = (; (Symbol(name) => value for (name, value) in pairs(options))...)

"\"builtin\", \"sciml\", \"optim\" or \"nlopt\": where the solver of a result comes from."
provider(method) = "builtin"

"Methods of a package that suit a gradient flow or a smooth loss, and how many P×P matrices they keep."
struct Provided
    package::String
    matrices::Int
    methods::Vector{String}
end

# What a name without an object stands for: "KenCarp58" or "sciml.KenCarp58"; where we have a method of that name too,
# the prefix decides.
const PROVIDED = Dict{String,Vector{Provided}}(
    "sciml" => [
        Provided("OrdinaryDiffEqTsit5", 0, ["Tsit5"]),
        Provided("OrdinaryDiffEqRosenbrock", 2,
                 ["Rosenbrock23", "Rodas3", "Rodas3P", "Rodas4", "Rodas4P", "Rodas5", "Rodas5P"]),
        Provided("OrdinaryDiffEqSDIRK", 2, ["ImplicitEuler", "Trapezoid", "TRBDF2", "Kvaerno3", "Kvaerno4", "Kvaerno5",
                                            "KenCarp3", "KenCarp4", "KenCarp47", "KenCarp5", "KenCarp58"]),
        Provided("OrdinaryDiffEqBDF", 2, ["ABDF2", "QNDF", "QBDF", "FBDF"]),
        Provided("OrdinaryDiffEqFIRK", 2, ["RadauIIA3", "RadauIIA5", "RadauIIA9"]),
        Provided("OrdinaryDiffEqLowOrderRK", 0, ["Euler", "Heun", "BS3", "RK4", "BS5", "DP5"]),
        Provided("OrdinaryDiffEqHighOrderRK", 0, ["DP8"]),
        Provided("OrdinaryDiffEqVerner", 0, ["Vern6", "Vern7", "Vern8", "Vern9"]),
        Provided("OrdinaryDiffEqStabilizedRK", 0, ["ROCK2", "ROCK4"]),
        Provided("OrdinaryDiffEqExtrapolation", 2, ["ImplicitHairerWannerExtrapolation"]),
        Provided("Sundials", 0, ["CVODE_BDF", "CVODE_Adams"]),
    ],
    "optim" => [
        Provided("Optim", 4, ["Newton"]),
        Provided("Optim", 3, ["NewtonTrustRegion"]),
        Provided("Optim", 1, ["BFGS"]),
        Provided("Optim", 0, ["LBFGS", "ConjugateGradient", "GradientDescent"]),
    ],
    "nlopt" => [Provided("NLopt", 1, ["SLSQP"]), Provided("NLopt", 0, ["LBFGS", "TNEWTON", "MMA", "VAR2"])],
)

"The provider of a name with its prefix removed, or `nothing`."
function provided(name::AbstractString, providers)
    name = String(name)
    prefix, rest = occursin('.', name) ? String.(split(name, '.'; limit=2)) : ["", name]
    for key in providers
        prefix in ("", key) || continue
        for p in PROVIDED[key]
            rest in p.methods && return (provider=key, package=p.package, method=String(rest))
        end
    end
    return nothing
end

const FLOW_PROVIDERS, MINIMIZE_PROVIDERS = ["sciml"], ["optim", "nlopt"]

"Every name that [`named_method`](@ref) knows beside our own, with its prefix."
provided_names(providers) =
    String["$key.$method" for key in providers for p in PROVIDED[key] for method in p.methods]

"""
    named_method(table, kind, name)

The method called `name`: of our own `table`, else of a provider. Its package must have been loaded by `load_provider`.
A method with options of its own is a call in Julia, such as `"KenCarp58(linsolve = LinearSolve.KrylovJL_GMRES())"`.
"""
function named_method(table, kind, text)
    name = called_method(text)
    name == text || return Base.invokelatest(called, table, kind, name, text)
    haskey(table, name) && return table[name]
    providers = kind == "alg" ? FLOW_PROVIDERS : MINIMIZE_PROVIDERS
    found = provided(name, providers)
    found === nothing && unknown(complain_of_name)(table, kind, name, providers)
    package = Base.root_module(package_id(found, name))
    return kind == "alg" ? named_flow_method(Val(Symbol(found.package)), package, found.method) :
           named_minimize_method(Val(Symbol(found.package)), package, found.method)
end

complain_of_name(table, kind, name, providers) =
    throw(ArgumentError("unknown $kind \"$name\"; known are " *
                        join([sort!(collect(keys(table))); sort!(provided_names(providers))], ", ")))

"The name before the parenthesis, if there is one."
called_method(text) = String(rstrip(String(first(split(text, '('; limit=2)))))

"The method that the call `text` makes."
function called(table, kind, name, text)
    method = named_method(table, kind, name)             # known, and what its package needs is there
    own = haskey(table, name)
    found = own ? nothing : provided(name, kind == "alg" ? FLOW_PROVIDERS : MINIMIZE_PROVIDERS)
    package = own ? @__MODULE__() : Base.root_module(package_id(found, name))
    complain(why) = throw(ArgumentError("$kind is $text, which Julia cannot evaluate: $why"))
    expression = parsed_call(text)
    expression isa Expr && expression.head == :call || complain("it must be one call, as in $name(…)")
    constructor = own ? typeof(method) : getfield(package, Symbol(found.method))
    constructor isa Union{Function,Type} || complain("$name takes no arguments")
    expression.args[1] = own ? nameof(constructor) : constructor
    room = Module(:Options)
    for loaded in [package; filter(!isnothing, package_called.(packages_named(expression)))]
        Core.eval(room, :(const $(nameof(loaded)) = $loaded))
    end
    Core.eval(room, Expr(:using, Expr(:., :., nameof(package))))
    value = try
        Core.eval(room, expression)
    catch err
        complain(sprint(showerror, err))
    end
    return Base.invokelatest(kind == "alg" ? flow_method : minimize_method, value)
end

function parsed_call(text)
    try
        return Meta.parse(text)
    catch
        return nothing
    end
end

"What stands before a dot, as LinearSolve in `LinearSolve.KrylovJL_GMRES()`."
function packages_named(expression)
    found = Symbol[]
    search(x) = nothing
    function search(x::Expr)
        x.head == :. && x.args[1] isa Symbol && push!(found, x.args[1])
        foreach(search, x.args)
    end
    search(expression)
    return unique(found)
end

"The package of that name, of this environment or loaded as a part of another; `nothing` if there is none."
function package_called(name::Symbol)
    id = Base.identify_package(String(name))
    id === nothing || return Base.require(id)
    for (id, loaded) in Base.loaded_modules
        id.name == String(name) && return loaded
    end
    return nothing
end

# Extensions replace these where a bare name needs more than its type's default.
named_flow_method(::Val, package, method) = flow_method(getfield(package, Symbol(method))())
named_minimize_method(::Val, package, method) = minimize_method(getfield(package, Symbol(method))())

function package_id(found, name)
    VERSION >= v"1.9" ||
        throw(ArgumentError("\"$name\" is a method of the Julia package $(found.package), which needs Julia 1.10 or " *
                            "newer; this is Julia $VERSION, with the builtin methods only"))
    id = Base.identify_package(found.package)
    id === nothing && throw(ArgumentError("\"$name\" is a method of the Julia package $(found.package), which is not " *
                                          "installed in this environment"))
    return id
end

"Load the package that a name asks for, if it does: the caller goes on in a newer world, where its methods are seen."
function load_provider(table, text, providers)
    name = called_method(text)
    found = haskey(table, name) ? nothing : provided(name, providers)
    found === nothing || Base.require(package_id(found, name))
    name == text || foreach(package_called, packages_named(parsed_call(text)))
    return nothing
end
