# Minimisation that goes on at infinity.

"""
    MinimumAtInfinity

What [`minimize_at_infinity`](@ref) found. `kind` is

- "minimum": `x` is a finite minimum; `channels` is empty
- "minimum at infinity": `q`, in the net `limit`, is a minimum of the limit of the `channels`, of loss `loss`, and near
  it the loss is loss + Σ h ε², with h > 0 for each channel in `coefficients` (for steps and relus see
  [`sharp_coefficient`](@ref)); or, without channels, the classes are separable, and the parameters grow in the
  direction `q`
- "open": neither was reached; `reason` says why

Where samples are on the kinks of relus, `q` is a minimum under the `constraint` that they stay there.

`x` is a point of the ordinary net: for a minimum at infinity the last one before the limit was taken, and `eps` says
how far from the limit each channel is there.
"""
struct MinimumAtInfinity{T}
    kind::String
    x::Vector{T}
    q::Vector{T}
    loss::T
    gnorm::T
    channels::Vector{Channel}
    coefficients::Vector{T}
    eps::Vector{T}
    limit::Net{T}
    constraint::Union{Nothing,Constraint{T}}
    iterations::Int
    stopped_by::Stop.Reason
    reason::String
    total_time::Float64
end
Base.show(io::IO, m::MinimumAtInfinity) =
    print(io, "MinimumAtInfinity(", m.kind, ", loss = ", m.loss, ", ‖∇L‖_∞ = ", m.gnorm, ", ", length(m.channels),
          " channels)")

"""
    minimize_at_infinity(net, x0; options...) -> MinimumAtInfinity

[`minimize`](@ref) in rounds. Between them, where units draw together while their outgoing weights grow, the limit of
these [`channels`](@ref) is tried: a minimum of the limit net that is lower than the point reached, and to which the
channels lead down (h > 0), is the minimum at infinity. Where the loss falls on the way out of the limit (h < 0), the
search goes on from its lowest point on that way. Where nothing gets on, `NewtonTrustRegion` has the last rounds. The
options are those of `minimize`, with its limits for all rounds together.

Under a constraint the limits are those that the constraint has, too ([`limit_net`](@ref)), and `x` and `q` are
parameters that obey it.
"""
minimize_at_infinity(net::Union{Net,ConstrainedNet}, x0::AbstractVector; monitor::Monitor=Monitor(), options...) =
    minimize_at_infinity(net, x0, MinimizeOptions(; options...), monitor)

# The first round is short: a channel is as good as known after a few hundred steps, and a finite minimum is reached in
# fewer.
const FIRST_ROUND = 200
# What has not ended by then is in a valley: from this round on Levenberg and Marquardt's method has one of the same
# length.
const LONG_ROUND = 800
in_channels(net::Net) = net.objective isa MeanSquared ? LevenbergMarquardt() : nothing
in_channels(net::ConstrainedNet) = in_channels(net.net)

mutable struct Rounds{T}
    options::MinimizeOptions
    monitor::Monitor
    start::Float64
    iterations::Int
    stop::Stop.Reason
end

function minimize_at_infinity(net::Union{Net{T},ConstrainedNet{T}}, x0::AbstractVector, options::MinimizeOptions,
                              monitor::Monitor) where {T}
    options.constraint === nothing ||
        return minimize_at_infinity(ConstrainedNet(net, options.constraint), coordinates(options.constraint, x0),
                                    changed(options; constraint=nothing), monitor)
    isempty(channels_of(layers_in(net))) || throw(ArgumentError("this net is a limit already"))
    unregularised(net) ||
        throw(ArgumentError("a net with regularisers has no minimum at infinity: minimize finds the finite one"))
    rounds = Rounds{T}(options, monitor, seconds(), 0, Stop.running)
    x, size = Vector{T}(x0), FIRST_ROUND
    m, kind = a_round!(rounds, net, x, size)
    while true
        kind in ("minimum", "degenerate") && return found("minimum", rounds, net, m, m.x, "")
        separates(net, m.x) && return separated(rounds, net, m)
        over(rounds) && return found("open", rounds, net, m, m.x, "a limit ended the search")
        landing = land(rounds, net, m, size)
        landing isa MinimumAtInfinity && return landing
        before = m.loss
        size *= 2
        m, kind = a_round!(rounds, net, landing, size)
        # In a channel the Hessian is worse conditioned than the Jacobian by a square.
        if size >= LONG_ROUND && !(kind in ("minimum", "degenerate")) && in_channels(net) !== nothing && !over(rounds)
            n, its_kind = a_round!(rounds, net, m.x, size, in_channels(net))
            n.loss < m.loss && ((m, kind) = (n, its_kind))
        end
        stuck = m.loss >= before && rounds.stop != Stop.maxiterations && !(kind in ("minimum", "degenerate"))
        stuck || continue
        rounds.options.optim_solver isa NewtonTrustRegion &&
            return found("open", rounds, net, m, m.x, why_open(net, m.x, kind))
        # others stop earlier in flat valleys
        rounds.options = changed(rounds.options; optim_solver=NewtonTrustRegion())
    end
end
function why_open(net, x, kind)
    found, all_of_them = channels(net, x), channels(innermost(net), parameters_from(net, x))
    length(found) < length(all_of_them) &&
        return "units are on their way to infinity, but the constraint holds some of their parameters back"
    isempty(found) || return "units are on their way to infinity, but no minimum of their limit was found below"
    kind == "escaping" && return "no units that draw together explain why the loss falls without end"
    return "the point is $kind"
end

"The infimum zero of separable classes, and the direction in which the parameters grow."
function separated(rounds, net::AbstractNet{T}, m) where {T}
    linear = net isa Net && length(net.layers) == 1
    θ = linear ? maximum_margin(net) : output_direction(net, m.x)
    isempty(θ) && return found("open", rounds, net, m, m.x, "the classes are separable, but by rounding only")
    reason = "separable classes: the loss falls to zero as the parameters grow" *
             (linear ? " in the direction q, that of the largest margin" : "; q is the last layer's direction")
    q = net isa Net ? θ : image(net.constraint, θ)
    return MinimumAtInfinity{T}("minimum at infinity", parameters_from(net, m.x), q / norm(q), zero(T), zero(T),
                                Channel[], T[], T[], innermost(net), nothing, rounds.iterations, m.stopped_by,
                                reason, seconds() - rounds.start)
end
channels_of(layers) = [c for l in layers for c in approaches(l)]

found(kind, rounds, net::AbstractNet{T}, m, x, reason) where {T} =
    MinimumAtInfinity{T}(kind, parameters_from(net, x), T[], m.loss, m.gnorm, Channel[], T[], T[],
                         innermost(net), nothing, rounds.iterations, m.stopped_by, reason,
                         seconds() - rounds.start)

over(r::Rounds) = r.stop in (Stop.interrupted, Stop.callback, Stop.maxtime, Stop.minloss) ||
    r.iterations >= r.options.maxiterations || seconds() - r.start >= r.options.maxtime

const BEYOND = "beyond the range of numbers"

"""
`minimize` with so many iterations at most, and what kind of point it found: as `classify` says, but "degenerate" only
if all null directions are explained.
"""
function a_round!(rounds::Rounds{T}, net::AbstractNet{T}, x::Vector{T}, iterations::Int,
                  solver=rounds.options.optim_solver) where {T}
    o = changed(rounds.options; optim_solver=solver)
    limited = changed(o; maxtime=max(0.0, o.maxtime - (seconds() - rounds.start)),
                      maxiterations=min(iterations, o.maxiterations - rounds.iterations))
    m = minimize(net, x, limited, rounds.monitor)
    rounds.iterations += m.iterations
    rounds.stop = m.stopped_by
    all_finite(gradient(net, m.x)) && all_finite(hessian(net, m.x)) || return m, BEYOND
    c = classify(net, m.x)
    c.kind == "degenerate" && c.unexplained > 0 || return m, c.kind
    return m, Base.invokelatest(minimum_to_more_digits, net, m.x) ? "minimum" : "of no known kind"
end

# Twenty digits tell eigenvalues apart from zero that a gradient known to Float64 cannot: its Newton step may be too
# long.
const MORE_DIGITS = 20

"""
Whether Newton's method in BigFloat converges nearby, with a Hessian that is positive definite but for directions that
are explained. `polish` only comes near: it leaves out the directions whose eigenvalues Float64 cannot tell from zero.
"""
function minimum_to_more_digits(net::AbstractNet, x::Vector)
    fine = polish(net, x; digits=MORE_DIGITS, maxiterations=20, maxtime=10)
    reach = eps(eltype(x))^0.4 * (1 + norm(x))
    norm(fine.x - x) <= reach || return false
    return setprecision(BigFloat, 256) do
        big, y = with_number_type(BigFloat, net), BigFloat.(fine.x)
        everything = Matrix{Float64}(I, length(x), length(x))
        invariant = [e for i in invariances(net, Float64.(y)) for e in i.directions]
        for _ in 1:10
            H = hessian(big, y)
            largest = maximum(sum(abs, H; dims=1))
            basis = Vector{Float64}[]
            for e in invariant
                norm(H * e) <= 1e-9 * largest * norm(e) && new_direction!(basis, e, everything)
            end
            for e in basis
                H += largest * e * e'
            end
            F = cholesky(Symmetric(H); check=false)
            issuccess(F) || return false
            step = F \ gradient(big, y)
            y -= step
            norm(y - x) <= reach || return false
            norm(step) <= 10.0^-MORE_DIGITS * (1 + norm(y)) && return true
        end
        return false
    end
end

"`a_round!` in a limit of `net`, from and to the limit's parameters."
function round_in!(rounds::Rounds, net::AbstractNet, limit::Net, q::Vector, iterations::Int)
    inner = under(limit, net)
    n, kind = a_round!(rounds, inner, parameters_within(inner, q), iterations)
    return changed(n; x=parameters_from(inner, n.x)), kind
end

# All trials of limits between two rounds may take so many times the iterations of the last of these.
const TRIALS = 3

"""
The minimum of the limit of the channels at the point `m`, if there is one that they lead down to, else a point of `net`
to go on from. Where the loss falls on the way out of some channels, the others alone may lead to infinity.
"""
function land(rounds::Rounds{T}, net::AbstractNet{T}, m, iterations::Int) where {T}
    x, lowest = m.x, m.loss
    waiting, tried = ways(net, m.x), Set{Tuple{Vector{T},Set{Vector{Int}}}}()
    most, last_ones = rounds.iterations + TRIALS * iterations, false
    while !over(rounds) && rounds.iterations < most
        isempty(waiting) && !last_ones && (last_ones = true; waiting = last_ways(net, m.x))
        isempty(waiting) && break
        z, seen = popfirst!(waiting)
        key = (z, Set([c.layer; c.units] for c in seen))
        (isempty(seen) || key in tried) && continue
        push!(tried, key)
        landing = land_on(rounds, net, m, z, seen, iterations)
        landing isa MinimumAtInfinity && return landing
        landing === nothing && continue
        limit, q, ε, h = landing
        θ, value = lowest_on_the_way(net, limit, q, ε, h)
        value < lowest && ((x, lowest) = (parameters_within(net, θ), value))
        push!(waiting, (z, filter(c -> all(h[k] >= 0 for k in chains_of(c, limit.layers)), seen)))
    end
    return x
end

"Points with the function of the net at θ, and channels there whose limit is to be tried."
function ways(net::AbstractNet{T}, θ::Vector{T}) where {T}
    found = channels(net, θ)
    return [[(θ, found), (θ, vcat(map(apart, found)...))];
            [(x, [line; filter(c -> beside(c, line), channels(net, x))]) for (x, line) in with_lines(net, θ)]]
end
beside(c::Channel, d::Channel) = c.layer != d.layer || isempty(intersect(c.units, d.units))

# Units that are still far from their limit, to which no run gets in reasonable time where the loss is flat: any minimum
# of the limit counts that is lower.
const FAR_DISTANCE, FAR_GROWTH = 1.0, 1.0

"Each of the channels alone, and each that looser bounds show, with those that have other units."
function last_ways(net::AbstractNet{T}, θ::Vector{T}) where {T}
    found = channels(net, θ)
    loose(x) = channels(net, x; distance=FAR_DISTANCE, growth=FAR_GROWTH)
    waiting = Tuple{Vector{T},Vector{Channel}}[(θ, [c]) for c in found]
    all_loose = loose(θ)
    push!(waiting, (θ, all_loose))
    append!(waiting, [(θ, [c; filter(d -> beside(c, d), found)]) for c in all_loose])
    for (x, line) in with_lines(net, θ), c in loose(x)
        beside(c, line) && push!(waiting, (x, [line, c]))
    end
    return waiting
end

"""
The minimum of the limit of the channels `seen` at θ and of those that show there, if they lead down to it; else what
was found of it, or nothing where no minimum was found.
"""
function land_on(rounds::Rounds{T}, net::AbstractNet{T}, m, z::Vector{T}, seen::Vector{Channel},
                 iterations::Int) where {T}
    limit, θ, more, seen = innermost(net), parameters_from(net, z), seen, Channel[]
    while !isempty(more) && !over(rounds)
        append!(seen, more)
        limit = limit_with(limit, more)
        start, ε = try_limit(limit, θ)
        start !== nothing && carries(limit, net, θ) || return nothing
        limit, start = with_insides(limit, start, ε)
        net isa Net && (start = with_samples_on_kinks(limit, start, ε))
        n, kind, q = search_in_limit!(rounds, net, limit, start, iterations, m.loss)
        normalise!(q, limit.layers)
        if kind in ("minimum", "degenerate")
            limit, q = move_steps(rounds, net, limit, q, iterations)
            each = ways_down(limit, q)
            h = in_groups(each, limit, net)
            q = settled_again(net, limit, q)
            inner = held(limit, net, q)
            z = parameters_within(inner, q)
            g = similar(z)
            value = value_and_gradient!(g, inner, z)
            # A run that has come as near as numbers reach has the limit's loss, but for rounding.
            below = value <= m.loss + 16 * eps(T) * loss_scale(net, m.x)
            below && supnorm(g) <= sqrt(eps(T)) && leads_down(limit, h) || return limit, q, ε, h
            C = net isa Net ? held_at_kinks(limit, q) : nothing
            return MinimumAtInfinity{T}("minimum at infinity", θ, q, value, supnorm(g),
                                        name_relus(in_order(seen, limit.layers), limit, q), each, ε, limit, C,
                                        rounds.iterations, n.stopped_by, "", seconds() - rounds.start)
        end
        inner = under(limit, net)
        more = channels(inner, parameters_within(inner, q))
    end
    return nothing
end
"""
The steps where no sample pulls them to itself: one that does is put inside, which lowers the loss, and goes out again
on the other side, or stays there at a finite pre-activation. Each time it is a smooth problem of its own.
"""
function move_steps(rounds::Rounds{T}, net::AbstractNet{T}, limit::Net{T}, q::Vector{T}, iterations::Int) where {T}
    value, lower = loss(limit, place_steps!(limit, q)), true
    while lower && !over(rounds)
        lower = false
        for (l, j) in steps(limit)
            samples, _, X, h = pulling(limit, q, l, j)
            isempty(samples) && continue
            i = first(samples)
            h[i] = sign(h[i])
            within = [inside(unit_activation(limit.layers[l], j), h); i]
            moved = put_inside(limit, q, l, j, X, h, unique(within))
            moved === nothing && continue
            n, kind = round_in!(rounds, net, moved..., iterations)
            kind in ("minimum", "degenerate") && n.loss < value || continue
            limit, q, value, lower = let_out(moved[1], n.x, l, j)..., n.loss, true
            place_steps!(limit, q)
        end
    end
    return limit, q
end
"Samples that have left the inside of a step are outside for good."
function let_out(limit::Net{T}, q::Vector{T}, l::Int, j::Int) where {T}
    X, h, _ = sharp_samples(limit, q, l, j)
    stay = findall(x -> abs(x) <= END_OF_STEP / 2, h)
    out = put_inside(limit, q, l, j, X, h, stay)
    return out === nothing ? (limit, q) : out
end
"To round-off in other scales, unless these change by more than rounding: fifty steps may not be enough."
function settled_again(net::AbstractNet{T}, limit::Net{T}, q::Vector{T}) where {T}
    inner = held(limit, net, q)
    x = parameters_from(inner, minimize(inner, parameters_within(inner, q); maxiterations=FIRST_ROUND).x)
    return norm(normalise!(copy(x), limit.layers) - x) <= sqrt(eps(T)) * norm(x) ? x : q
end

"`to_limit`, or nothing where the units of a group are of no use."
function try_limit(limit::Net, x)
    try
        return to_limit(limit.layers, x)
    catch failure
        failure isa ArgumentError || rethrow()
        return nothing, nothing
    end
end

"Two tails that merge as two that do not."
apart(c::Channel) =
    c.kind != "tails" ? [c] : [Channel(c.layer, [j], "tail", 1.0, c.distance, c.growth, c.eps) for j in c.units]

"The numbers of the chains that a channel has become."
function chains_of(c::Channel, layers::Vector{Layer})
    numbered = [(l, chain) for (l, layer) in enumerate(layers) for chain in approaches(layer)]
    belongs(l, chain) = c.layer == l && Set(c.units) == Set(chain.units)
    return [k for (k, (l, chain)) in enumerate(numbered) if belongs(l, chain)]
end
"The channels in the order of the chains of the layers."
in_order(seen::Vector{Channel}, layers::Vector{Layer}) =
    [first(c for c in seen if k in chains_of(c, layers)) for k in 1:count_chains(layers)]

"Out of the limit in the channels that lead up to it, as far as the loss falls."
function lowest_on_the_way(net::AbstractNet{T}, limit::Net{T}, q, ε, h) where {T}
    net, best, lowest = innermost(net), q, T(Inf)
    for k in -8:8
        θ = from_limit(limit.layers, q, [h[i] > 0 ? ε[i] : T(2)^k for i in eachindex(h)])
        value = loss(net, θ)
        value < lowest && ((best, lowest) = (θ, value))
    end
    base = best
    for (l, j) in steps(limit), θ in nearer(limit, q, base, l, j)
        value = loss(net, θ)
        value < lowest && ((best, lowest) = (θ, value))
    end
    return best, lowest
end
