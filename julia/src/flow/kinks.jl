# Flows of nets whose activations have kinks, as relu has: the field is smooth but for jumps where a pre-activation
# passes a kink. Its steps are made on one side of every kink, with activations continued smoothly across them
# (`take_sides!`), and end where the first pre-activation reaches one. There the flow crosses, or, where it points to
# the kink from both sides, slides along it with the convex combination of both gradients that stays on it (Filippov,
# *Differential equations with discontinuous righthand sides*, 1988): the part of the gradient that is tangential to all
# kinks slid along. Where several meet in one point, as all of a unit without bias do when its weights vanish, the sides
# are those with which the velocity leads to the sides it is computed with: a linear complementarity problem. With
# several kinks of one sample in different layers the weights of the sides enter each other's gradients; in a step each
# is then followed with the others as they were at the last decision.

"""
    Contact

A pre-activation that is at a kink: row and unit of `net.blocks[block].kinks[kink]`.
"""
struct Contact
    block::Int
    kink::Int
    row::Int
    unit::Int
end

"""
    Fellow

What is at its kink since others slide. If its normal is `ratio` normals of the `leader`, which slides, as of samples
with the same input or where a unit has one input and no bias, it passes its kink with it, so that they have one weight;
else `ratio` is zero and its side a weight of its own.
"""
struct Fellow{T}
    contact::Contact
    leader::Contact
    ratio::T
end

# What the last steps have cost, how far they led and how far they would have led without kinks; the rate of the other
# way.
Base.@kwdef mutable struct KinkWatch
    steps::Int = 0
    covered::Float64 = 0
    wanted::Float64 = 0
    cost::Float64 = 0      # at their begin
    rate::Float64 = 0
    wait::Int = 0          # stretches until the other way is tried
    patience::Int = 1      # the next `wait`
    trial::Bool = false
    crowded::Float64       # the part of a step that is so little that the other way is tried
end

"""
    Kinks(net)

Where the flow is, as seen from the kinks of `net`; `nothing` if there are none, or so many that they blur.

- `plain`, `net`: the net, and one with the same data whose blocks know the sides of kinks; `whole`, `sided`: what the
  flow is one of, the same unless it is constrained
- `rows`: samples in each block
- `active`: what slides, `slack` by how much its weight may leave [0, 1]; `fellows`: what stays at its kink because its
  normal depends on theirs; `recent` and `doubts`: what was met lately, and how often
- `judged`: all that is at its kink when sides are decided, with its `normals` and its `pull`, how many of them the
  gradient grows by from side 0 to side 1, and `leeway`, its slack if it will slide; `rest`: with its side 0 it stays
- `weight`: of side 1 in the convex combination (0 to 1), `weight_early` and `weight_late` at two ends of a piece of a
  step; `strength`: how many normals of its kink the gradient grows by from side 0 to side 1
- `share`: how many normals the gradient's part across the kinks has
- `basis`, `triangle`: normals of the kinks slid along as Q R; `known`: they are up to date, and the same everywhere
- `met`: what reached a kink, or should leave it, in this step; `step`: the polynomial of the step, of the given degree
- `frozen`: steps are made on one side of every kink; `passes`: forward passes spent on that; `watch`: whether it pays
"""
Base.@kwdef mutable struct Kinks{T<:AbstractFloat}
    plain::Net{T}
    net::Net{T}
    whole::AbstractNet{T}
    sided::AbstractNet{T}
    rows::Vector{Int}
    active::Vector{Contact} = Contact[]
    slack::Vector{T} = T[]
    fellows::Vector{Fellow{T}} = Fellow{T}[]
    judged::Vector{Contact} = Contact[]
    normals::Vector{Vector{T}} = Vector{T}[]
    pull::Vector{T} = T[]
    leeway::Vector{T} = T[]
    leader::Vector{Int} = Int[]
    rest::Vector{Bool} = Bool[]
    ratio::Vector{T} = T[]
    recent::Vector{Contact} = Contact[]
    doubts::Vector{Int} = Int[]
    weight::Vector{T} = T[]
    weight_early::Vector{T} = T[]
    weight_late::Vector{T} = T[]
    strength::Vector{T} = T[]
    share::Vector{T} = T[]
    basis::Vector{Vector{T}} = Vector{T}[]
    triangle::Matrix{T} = zeros(T, 0, 0)
    known::Bool = false
    met::Vector{Contact} = Contact[]
    step::Vector{T} = T[]
    degree::Int = 0
    cut::Bool = false  # `step` has been cut at a kink
    frozen::Bool = false
    passes::Int = 0
    watch::KinkWatch
    x::Vector{T} = zeros(T, n_params(whole))
    y::Vector{T} = zeros(T, n_params(whole))
    g::Vector{T} = zeros(T, n_params(whole))
    normal::Vector{T} = zeros(T, n_params(whole))
    wide::Vector{T} = zeros(T, net.n_params)          # a normal in all parameters
    above::Vector{T} = zeros(T, widest(net.layers))   # derivatives by the units of a layer
    below::Vector{T} = zeros(T, widest(net.layers))
end

# With a million pre-activations each jumps the gradient by so little, and so many are met in every step, that error
# control does better. (The matrices of `KinkSides` take 40 MB there.)
const MOST_SIDES = 1_000_000

widest(layers) = maximum(l -> max(l.width, l.fan_in), layers)

Kinks(::AbstractNet) = nothing
Kinks(net::Net) = may_have_kinks(net) ? unknown(Kinks)(net, net) : nothing
Kinks(net::ConstrainedNet) = may_have_kinks(innermost(net)) ? unknown(Kinks)(innermost(net), net) : nothing

function Kinks(net::Net{T}, whole::AbstractNet{T}) where {T}
    found = Tuple{Int,Int,Int,T,T}[]
    for (l, layer) in enumerate(net.layers), columns in layer.columns
        positions, jumps = kinks_of(columns.activation)::Tuple{Vector{Float64},Vector{Float64}}
        for (position, jump) in zip(positions, jumps)
            jump == 0 || push!(found, (l, columns.first, columns.last, T(position), T(jump)))
        end
    end
    isempty(found) && return nothing
    count = sum(k -> k[3] - k[2] + 1, found) * net.n_samples
    count <= MOST_SIDES || return nothing
    sided = [Block{T}(b.n, b.X, b.Y, b.w, [KinkSides{T}(k..., b.n) for k in found]) for b in net.blocks]
    copy = rebuilt(net; blocks=sided)
    rows = [min(BLOCK, net.n_samples - (b - 1) * BLOCK) for b in 1:length(sided)]
    watch = KinkWatch(crowded=count < MANY_SIDES ? STANDSTILL : CROWDED)
    return Kinks{T}(plain=net, net=copy, whole=whole, sided=around(copy, whole), rows=rows, watch=watch)
end

"Whether [`Kinks`](@ref) may find any, from the activations' names alone: those of a user's function take time to find."
may_have_kinks(::AbstractNet) = false
function may_have_kinks(net::Net)
    for layer in net.layers, columns in layer.columns
        f = columns.activation
        (f isa Custom || !isempty(unknown(kinks_of)(f)[1]))::Bool && return true
    end
    return false
end

# A user's function may not be defined everywhere, or jump itself: then nothing is known of its kinks.
kinks_of(a::Activation) = find_kinks(a)
function kinks_of(a::Custom)
    try
        return find_kinks(a)
    catch failure
        failure isa InterruptException && rethrow()
        return Float64[], Float64[]
    end
end

sides(kinks::Kinks, c::Contact) = @inbounds kinks.net.blocks[c.block].kinks[c.kink]
side(kinks::Kinks, c::Contact) = @inbounds sides(kinks, c).side[c.row, c.unit]
side!(kinks::Kinks, c::Contact, value) = @inbounds sides(kinks, c).side[c.row, c.unit] = value

"Pre-activations at the parameters `x`."
function forward_kinks!(kinks::Kinks, x)
    net = kinks.net
    kinks.passes += 1
    θ = full(kinks.sided, x)
    for block in net.blocks
        forward!(net.crew.workers[1].workspace, net, θ, block, 0)
    end
    return nothing
end

"Put every pre-activation at `x` on the side that it is on; nothing slides."
function freeze!(kinks::Kinks{T}, x) where {T}
    net = kinks.net
    foreach(empty!, (kinks.active, kinks.slack, kinks.fellows))
    kinks.known = false
    for _ in net.layers                    # a layer's sides must be known before the next one's can be
        forward_kinks!(kinks, x)
        for block in net.blocks, k in block.kinks
            @. k.side = k.h > 0
        end
    end
    kinks.frozen = true
    return nothing
end

"Keep the pre-activations of the last forward pass, and the weights, as those at the early or the late end of a piece."
function keep!(kinks::Kinks, early::Bool)
    for block in kinks.net.blocks, k in block.kinks
        copyto!(early ? k.early : k.late, k.h)
    end
    kept = early ? kinks.weight_early : kinks.weight_late
    copyto!(resize!(kept, length(kinks.active)), kinks.weight)
    return nothing
end

# The points of a method are known up to its tolerance, gradients there up to that times the curvature. So a
# pre-activation may seem to come back to a kink that it crossed just now, or the weights may say that a kink should be
# left to which the flow comes back at once. What is met again while it is one of `RECENT` that were met must go beyond
# the kink, or out of [0, 1], by ten times as much each time; at first by rounding.
const RECENT = 32
const MOST_SLACK = 1e-4
slack_after(::Type{T}, doubts::Int) where {T} = min(sqrt(eps(T)) * T(10)^doubts, T(MOST_SLACK))

"Remember that `c` was met: how often it was, of late."
function doubt!(kinks::Kinks, c::Contact)
    i = findfirst(==(c), kinks.recent)
    doubts = 0
    if i !== nothing
        doubts = kinks.doubts[i] + 1
        deleteat!(kinks.recent, i)
        deleteat!(kinks.doubts, i)
    elseif length(kinks.recent) == RECENT
        popfirst!(kinks.recent)
        popfirst!(kinks.doubts)
    end
    push!(kinks.recent, c)
    push!(kinks.doubts, doubts)
    return doubts
end

# Rounding of sums of products of numbers that are, with their products, as large as the largest result at least. What
# begins a step beyond its side, moved there by a return to other kinks, is only met if it goes further.
function set_margins!(kinks::Kinks{T}, reltol::Float64) where {T}
    for (b, block) in enumerate(kinks.net.blocks), k in block.kinks
        largest = abs(k.position)
        for u in 1:size(k.h, 2)
            @inbounds @simd for r in 1:kinks.rows[b]
                largest = max(largest, abs(k.h[r, u]))
            end
        end
        k.noise = 64 * eps(T) * largest + floatmin(T)
        for u in 1:size(k.h, 2)
            @inbounds @simd for r in 1:kinks.rows[b]
                side, h = k.side[r, u], k.h[r, u]
                k.margin[r, u] = max(k.noise, 2 * ifelse(side == 1, -h, ifelse(side == 0, h, abs(h))))
            end
        end
    end
    for (c, doubts) in zip(kinks.recent, kinks.doubts)
        k = sides(kinks, c)
        most = max(10 * T(reltol) / (64 * eps(T)), one(T))
        k.margin[c.row, c.unit] = max(k.margin[c.row, c.unit], k.noise * min(T(10)^doubts, most))
    end
    return nothing
end

"How far inside its range a weight is."
range_margin(w::T, slack::T) where {T} = min(w, 1 - w) + slack

# Pre-activations that slide are not looked at: their sides lie between 0 and 1.
@inline beyond(side::T, h::T, margin::T) where {T} = (side == 1) & (h < -margin) | (side == 0) & (h > margin)

left_behind(kinks::Kinks, c::Contact, h) = @inbounds abs(h[c.row, c.unit]) > sides(kinks, c).margin[c.row, c.unit]

"Whether in the last forward pass a pre-activation was beyond its side, or a weight out of its range."
function violated(kinks::Kinks)
    any(i -> range_margin(kinks.weight[i], kinks.slack[i]) < 0, eachindex(kinks.weight)) && return true
    any(f -> left_behind(kinks, f.contact, sides(kinks, f.contact).h), kinks.fellows) && return true
    for (b, block) in enumerate(kinks.net.blocks), k in block.kinks
        side, h, margin = k.side, k.h, k.margin
        for u in 1:size(h, 2)
            found = false
            @inbounds @simd for r in 1:kinks.rows[b]
                found |= beyond(side[r, u], h[r, u], margin[r, u])
            end
            found && return true
        end
    end
    return false
end

"""
    earliest!(kinks) -> (part, tiny)

The first zero, as a part of the piece between the two ends, by straight lines, and whether what is beyond at its end is
so by hardly more than is allowed; it goes into `met`.
"""
function earliest!(kinks::Kinks{T}) where {T}
    empty!(kinks.met)
    part = one(T)
    tiny = true
    for (b, block) in enumerate(kinks.net.blocks), (q, k) in enumerate(block.kinks)
        for u in 1:size(k.h, 2), r in 1:kinks.rows[b]
            @inbounds margin = k.margin[r, u]
            @inbounds beyond(k.side[r, u], k.late[r, u], margin) || continue
            @inbounds sign = 2 * k.side[r, u] - 1
            @inbounds early, late = sign * k.early[r, u], sign * k.late[r, u]
            part = min(part, (early + margin + k.noise / 2) / (early - late))
            tiny &= late >= -margin - k.noise
            push!(kinks.met, Contact(b, q, r, u))
        end
    end
    for f in kinks.fellows
        c = f.contact
        k = sides(kinks, c)
        left_behind(kinks, c, k.late) || continue
        early, late, margin = abs(k.early[c.row, c.unit]), abs(k.late[c.row, c.unit]), k.margin[c.row, c.unit]
        early < late && (part = min(part, (margin + k.noise / 2 - early) / (late - early)))
        tiny &= late <= margin + k.noise
        push!(kinks.met, c)
    end
    for (i, c) in enumerate(kinks.active)
        slack = kinks.slack[i]
        late = range_margin(kinks.weight_late[i], slack)
        late >= 0 && continue
        early = range_margin(kinks.weight_early[i], slack)
        early > late && (part = min(part, (early + slack / 2) / (early - late)))
        tiny &= late >= -slack
        push!(kinks.met, c)
    end
    return max(Float64(part), 0.0), tiny
end

"Begin on the sides that the start `x` is on; steps have polynomials of that degree."
function begin_kinks!(kinks::Kinks{T}, problem, x, degree::Int) where {T}
    watch!(kinks.net, kinks.plain.monitor)
    kinks.degree = degree
    resize!(kinks.step, problem.n * (degree + 1))
    problem.net = kinks.sided
    freeze!(kinks, x)
    return nothing
end

# Where many kinks of little weight are crossed in every step, as with very many samples, methods with error control
# that know nothing of them are faster. So where kinks cut the steps to less than a part `CROWDED` and there are
# `MANY_SIDES`, some steps are made in ignorance of them, and both ways are compared: time covered per gradient. Where
# they are cut to less than `STANDSTILL`, as happens where dozens of kinks meet in one point that is not a minimum, some
# steps in ignorance lead away. (Ignorance is not accurate where the flow slides: with 40 samples, 1e-3 of the loss at a
# tolerance of 1e-6.)
const TRIAL = 16               # steps
const CROWDED = 1 / 16
const MANY_SIDES = 10_000      # pre-activations
const STANDSTILL = 1e-8
const MOST_PATIENCE = 64       # in units of `TRIAL`

# In gradients; what a Hessian and its factorisation cost as in `steps_worth`.
spent(kinks::Kinks, problem) = problem.nfev + kinks.passes / 3 + problem.nhev * problem.n / 3

"""
    review!(kinks, problem, x, step, whole) -> Bool

After a step to `x` of length `step` of `whole`: whether from now on kinks are ignored, or known again.
"""
function review!(kinks::Kinks, problem, x, step::Float64, whole::Float64)
    w = kinks.watch
    w.steps += 1
    w.covered += step
    w.wanted += whole
    w.steps < TRIAL && return false
    now = spent(kinks, problem)
    rate, crowded = w.covered / (now - w.cost), w.covered < w.crowded * w.wanted
    w.steps, w.covered, w.wanted, w.cost = 0, 0.0, 0.0, now
    if w.crowded == STANDSTILL
        if kinks.frozen
            crowded || return false
            w.wait, w.patience = w.patience, min(4 * w.patience, MOST_PATIENCE)
        else
            w.wait -= 1
            w.wait > 0 && return false
        end
    elseif w.trial                               # of what is on: the better way goes on
        w.trial = false
        w.wait = w.patience = min(4 * w.patience, MOST_PATIENCE)
        rate > w.rate && return false
    else
        w.wait -= 1
        (kinks.frozen && !crowded || w.wait > 0) && return false
        w.rate, w.trial = rate, true
    end
    kinks.frozen ? thaw!(kinks) : freeze!(kinks, x)
    problem.net = kinks.frozen ? kinks.sided : kinks.whole
    return true
end

"As many vectors as that, of `n` numbers."
function room!(vectors::Vector{Vector{T}}, count::Int, n::Int) where {T}
    while length(vectors) < count
        push!(vectors, zeros(T, n))
    end
    return vectors
end

function thaw!(kinks::Kinks)
    foreach(empty!, (kinks.active, kinks.slack, kinks.fellows))
    kinks.frozen = kinks.cut = false
    return nothing
end

"""
    ignore_kinks!(kinks, problem, state)

Where steps on one side of kinks lead nowhere: go on without knowledge of them for a while, longer each time.
"""
function ignore_kinks!(kinks::Kinks, problem, state)
    w = kinks.watch
    w.wait, w.patience = w.patience, min(4 * w.patience, MOST_PATIENCE)
    w.steps, w.covered, w.wanted, w.trial = 0, 0.0, 0.0, false
    thaw!(kinks)
    problem.net = kinks.whole
    evaluate_point!(problem, state)
    return nothing
end
