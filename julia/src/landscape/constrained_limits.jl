# Limits of nets under a constraint. At fixed distances ε the ordinary parameters are θ = T q + t with the parameters q
# of the limit ([`from_limit`](@ref)), so that points θ = B z + c are the points q = T⁻¹B z + T⁻¹(c − t). A constraint
# has a limit of its own if these points are the same for all ε: then the loss on them, in the limit and at a distance,
# is a function of the same coordinates, and all that is known of limits holds in these.

"""
    Chart(layers, ε)

θ = T q + t on the parameters `places`, where ordinary and limit parameters differ at the distances `ε` of the units.
"""
struct Chart
    places::Vector{Int}
    T::Matrix{Float64}
    t::Vector{Float64}
end
function Chart(layers::Vector{Layer}, ε::Vector{Float64})
    places = sort!(unique(reduce(vcat, chain_places(layers); init=Int[])))
    q = zeros(sum(n_params, layers))
    t = isempty(ε) ? q : from_limit(layers, q, ε)
    T = zeros(length(places), length(places))
    for (k, i) in enumerate(places)
        q[i] = 1
        T[:, k] = (from_limit(layers, q, ε)-t)[places]
        q[i] = 0
    end
    return Chart(places, T, t[places])
end

"For each chain the parameters that its limit changes."
chain_places(layers::Vector{Layer}) =
    Vector{Int}[places_of(layers, l, chain) for (l, layer) in enumerate(layers) for chain in approaches(layer)]
function places_of(layers::Vector{Layer}, l::Int, chain::Chain)
    f, places = chain.activation, Int[]
    for j in chain.units
        append!(places, incoming(layers[l], j))
        append!(places, outgoing(layers[l+1], j))
    end
    f isa Tail && tail(f.f)[1] != 0 && append!(places, biases(layers[l+1]))
    return places
end

"""
    moved(C, places, A, a) -> C′

The constraint of the parameters that are A θ[places] + a, and θ elsewhere, where θ obey `C`. If `C` only freezes and
ties, its columns are brought to echelon form, in which a coordinate is the value of the first parameter that it moves.
"""
function moved(C::Constraint, places::Vector{Int}, A::Matrix{Float64}, a::Vector{Float64})
    number = Dict(i => k for (k, i) in enumerate(places))
    touched = [j for j in 1:n_coordinates(C) if any(k -> haskey(number, C.rows[k]), column(C, j))]
    others = sort!(unique(Int[C.rows[k] for j in touched for k in column(C, j) if !haskey(number, C.rows[k])]))
    rows = [places; others]
    place = Dict(i => k for (k, i) in enumerate(rows))
    B, c = zeros(length(rows), length(touched)), Vector{Float64}(C.c)
    for (m, j) in enumerate(touched), k in column(C, j)
        B[place[C.rows[k]], m] += C.values[k]
    end
    inside = 1:length(places)
    sizes = abs.(B)
    sizes[inside, :] = abs.(A) * sizes[inside, :]
    B[inside, :] = A * B[inside, :]
    c[places] = A * c[places] + a
    order = sortperm(rows)
    rows, B, part = rows[order], B[order, :], c[rows[order]]
    disjoint(C) && echelon!(B, part, sizes[order, :])
    c[rows] = part
    columns = [[(C.rows[k], Float64(C.values[k])) for k in column(C, j)] for j in 1:n_coordinates(C) if !(j in touched)]
    append!(columns, [[(rows[i], B[i, m]) for i in eachindex(rows) if B[i, m] != 0] for m in axes(B, 2)])
    return constraint_of_columns(columns, c)
end

# So much smaller than what an entry is the sum of it is zero but for rounding, and so near to a whole number it is that
# number: T mixes two or three parameters.
const NO_ENTRY = 1e-10

"""
Column echelon form of `B`, with ones where a column begins, and zeros there in the other columns and in `c`. `sizes`:
how large the numbers are of which the entries are sums.
"""
function echelon!(B::Matrix{Float64}, c::Vector{Float64}, sizes::Matrix{Float64})
    isempty(B) && return B, c
    # Powers of two, which are exact.
    scale = [(m = maximum(row); m > 0 ? 2.0^exponent(m) : 1.0) for row in eachrow(sizes)]
    B ./= scale
    c ./= scale
    n, pivots = 0, Int[]
    for i in axes(B, 1)
        n == size(B, 2) && break
        k = n + argmax(abs.(B[i, n+1:end]))
        abs(B[i, k]) > NO_ENTRY || continue
        n += 1
        push!(pivots, i)
        B[:, [n, k]] = B[:, [k, n]]
        B[:, n] ./= B[i, n]
        for m in axes(B, 2)
            m == n || (B[:, m] .-= B[i, m] .* B[:, n])
        end
        c .-= c[i] .* B[:, n]
    end
    B .= [abs(x) <= NO_ENTRY ? 0.0 : x for x in B]
    B .*= scale ./ permutedims(scale[pivots])
    B .= [abs(x - round(x)) <= NO_ENTRY ? round(x) : x for x in B]
    c .*= scale
    return B, c
end

"The constraint of the ordinary parameters where those of a limit obey `C`; its own distances count where it has them."
function ordinary_constraint(layers::Vector{Layer}, C::Constraint)
    chart = Chart(layers, [c.ε > 0 ? c.ε : 1.0 for c in channels_of(layers)])
    return moved(C, chart.places, chart.T, chart.t)
end

"The constraint of a limit's parameters at the distances `ε`, from that of the ordinary ones."
function constraint_at(layers::Vector{Layer}, C::Constraint, ε::Vector{Float64})
    chart = Chart(layers, ε)
    A = isempty(ε) ? chart.T : inv(chart.T)
    return moved(C, chart.places, A, -(A * chart.t))
end

"""
    carried(layers, C) -> C′, blocked, together

The constraint `C` of an ordinary net in the parameters of a limit of it. `blocked`: the parameters for which it would
be another at each distance, so that it has no limit. `together`: groups of chains for which it is the same only if
they have the same distance from the limit.
"""
function carried(layers::Vector{Layer}, C::Constraint)
    chains = channels_of(layers)
    own = [c.ε > 0 ? c.ε : 1.0 for c in chains]
    limit = constraint_at(layers, C, own)
    blocked, together = Int[], Vector{Int}[]
    for group in linked_chains(layers, C)
        free = filter(k -> chains[k].ε == 0, group)
        isempty(free) && continue
        # A constraint that changes with ε is one of rational functions of it, which two numbers tell.
        for e in (1 / 2, 1 / 3)
            append!(blocked, off(limit, constraint_at(layers, C, [k in free ? e : own[k] for k in eachindex(own)])))
        end
        alone(k) = isempty(off(limit, constraint_at(layers, C, [m == k ? 1 / 2 : own[m] for m in eachindex(own)])))
        length(free) == 1 || all(alone, free) || push!(together, free)
    end
    return limit, restricted(C, named(layers, own, blocked)), together
end

"The ordinary parameters that depend on those of the limit."
function named(layers::Vector{Layer}, ε::Vector{Float64}, found::Vector{Int})
    isempty(found) && return found
    chart = Chart(layers, ε)
    columns = findall(in(found), chart.places)
    depend = chart.places[[any(!iszero, chart.T[i, columns]) for i in eachindex(chart.places)]]
    return sort!(union(found, depend))
end

"Chains in groups between which the constraint has no coordinate."
function linked_chains(layers::Vector{Layer}, C::Constraint)
    places = [Set(p) for p in chain_places(layers)]
    groups = [[k] for k in eachindex(places)]
    for j in 1:n_coordinates(C)
        rows = Set(C.rows[k] for k in column(C, j))
        joined = filter(group -> any(k -> !isdisjoint(places[k], rows), group), groups)
        length(joined) > 1 || continue
        groups = [filter(group -> !(group in joined), groups); [sort!(vcat(joined...))]]
    end
    return groups
end

"The parameters in which the points of the second constraint are none of the first."
function off(C::Constraint{Float64}, D::Constraint{Float64})
    C.first == D.first && C.rows == D.rows && C.values ≈ D.values && C.c ≈ D.c && return Int[]
    B, size = Matrix(C), max(1, norm(C.c))
    Q = Matrix(qr(B).Q)
    rest(v) = v - Q * (Q' * v)
    found = Int[]
    for v in [[normalize(b) for b in eachcol(Matrix(D))]; [(D.c - C.c) / size]]
        append!(found, findall(x -> abs(x) > sqrt(eps()), rest(v)))
    end
    return found
end

"Those of the parameters that are not free, or all of them if all are."
function restricted(C::Constraint, places::Vector{Int})
    held = setdiff(places, free_parameters(C))
    return isempty(held) ? places : held
end

"The constraint of `r` in the parameters of `layers`, which are a limit of the same ordinary net, or that net's."
carried(layers::Vector{Layer}, r::ConstrainedNet) =
    carried(layers, ordinary_constraint(layers_in(r), Constraint{Float64}(r.constraint)))

"""
    limit_net(r::ConstrainedNet, groups; options...) -> ConstrainedNet

The limit of the net with the constraint in its parameters. An error where that would be another at each distance from
the limit, as where one of two units that merge has a frozen bias.
"""
function limit_net(r::ConstrainedNet{T}, groups; options...) where {T}
    limit = limit_net(r.net, groups; options...)
    C, blocked, _ = carried(limit.layers, r)
    isempty(blocked) || throw(ArgumentError("the constraint has no limit: it is another at each distance in the " *
                                            "parameters $(join(blocked, ", "))"))
    return ConstrainedNet(limit, Constraint{T}(C))
end
without_chains(r::ConstrainedNet{T}) where {T} =
    (net = without_chains(r.net); ConstrainedNet(net, Constraint{T}(carried(net.layers, r)[1])))

# ---- channels ------------------------------------------------------------------------------------------------------

"The limit of `net` in which the units of the channels do what these say."
function limit_with(net::Net, found::Vector{Channel})
    for l in unique(c.layer for c in found)
        of(kinds) = Vector{Int}[c.units for c in found if c.layer == l && c.kind in kinds]
        singly = [[[j] for units in of(("tails",)) for j in units]; of(("tail",))]
        net = limit_net(net, singly; sharp=[u[1] for u in of(("step", "relu", "kink", "line"))], layer=l)
        net = limit_net(net, of(("pair", "triple", "tails")); layer=l)
    end
    return net
end

"""
The channels of a net at θ whose limit its constraint has, too, with units that may go there. What a limit does with
steps and with two tails that merge is for free parameters.
"""
function channels(r::ConstrainedNet{T}, z::AbstractVector; options...) where {T}
    θ, ordinary = embed(r.constraint, Vector{T}(z)), isempty(channels_of(layers_in(r)))
    found, kept = channels(r.net, θ; options...), Channel[]
    isempty(found) && return found
    layers = limit_with(r.net, found).layers
    for group in linked_chains(layers, ordinary_constraint(layers_in(r), Constraint{Float64}(r.constraint)))
        those = filter(c -> any(in(group), chains_of(c, layers)), found)
        carries(limit_with(r.net, those), r, ordinary ? θ : nothing) && append!(kept, those)
    end
    return filter(in(kept), found)
end

"Whether the constraint has this limit, and the ordinary point θ is one of its points there."
carries(limit::Net, net::Net, θ) = true
function carries(limit::Net, r::ConstrainedNet, θ)
    free = free_parameters(ordinary_constraint(layers_in(r), Constraint{Float64}(r.constraint)))
    for (chain, places) in zip(channels_of(limit.layers), chain_places(limit.layers))
        f = chain.activation
        is_step(f) || f isa Tail && merges(chain) || continue
        issubset(places, free) || return false
    end
    C, blocked, _ = carried(limit.layers, r)
    isempty(blocked) || return false
    q = θ === nothing ? θ : try_limit(limit, θ)[1]
    return q === nothing ? θ === nothing : obeys(C, q)
end
function obeys(C::Constraint{S}, q::Vector{T}) where {S,T}
    x = Vector{S}(q)
    return norm(embed(C, coordinates(C, x)) - x) <= sqrt(eps(T)) * (1 + norm(x))
end

function ways_to_infinity(r::ConstrainedNet, z)
    found = ways_to_infinity(r.net, embed(r.constraint, z))
    return isempty(found) ? found : channels(r, z; distance=CHANNEL_DISTANCE, growth=CHANNEL_GROWTH)
end

# ---- a net and a limit of it, with or without a constraint -----------------------------------------------------------

"The limit of a net under the net's constraint, which it has."
under(limit::Net, ::Net) = limit
under(limit::Net{T}, r::ConstrainedNet{T}) where {T} = ConstrainedNet(limit, Constraint{T}(carried(limit.layers, r)[1]))

"""
The coefficients h of channels, with their sum in the place of those that stay at one distance: it is what counts on
their way.
"""
in_groups(h::Vector, limit::Net, ::Net) = h
function in_groups(h::Vector, limit::Net, r::ConstrainedNet)
    h = copy(h)
    for group in carried(limit.layers, r)[3]
        h[group] .= sum(h[group])
    end
    return h
end
