# Which side of its kink everything is on, or between, where a step has ended at one.

# At a kink is what is as near to it as the points of steps that end there come; it is judged together.
const NEAR = 4                 # in units of rounding

"All that is at its kink at the point of the last forward pass, what was met and what has slid, in `kinks.judged`."
function gather!(kinks::Kinks)
    empty!(kinks.judged)
    for (b, block) in enumerate(kinks.net.blocks), (q, k) in enumerate(block.kinks)
        for u in 1:size(k.h, 2), r in 1:kinks.rows[b]
            @inbounds abs(k.h[r, u]) <= NEAR * k.noise && push!(kinks.judged, Contact(b, q, r, u))
        end
    end
    near = length(kinks.judged)
    for list in (kinks.met, kinks.active), c in list
        c in kinks.judged || push!(kinks.judged, c)
    end
    for f in kinks.fellows
        f.contact in kinks.judged || push!(kinks.judged, f.contact)
    end
    length(kinks.judged) > near && sort!(kinks.judged, by=c -> c.block)
    return nothing
end

# Normals and pulls of what is judged, with the sides as they are, and the whole gradient there in `g`.
function pulls!(kinks::Kinks{T}, problem::FlowProblem{T}, y, g) where {T}
    value_and_gradient_at!(g, problem, y)
    θ, last = full(problem.net, parameters(problem, y)), 0
    resize!(kinks.pull, length(kinks.judged))
    room!(kinks.normals, length(kinks.judged), problem.n)
    for (i, c) in enumerate(kinks.judged)
        kinks.pull[i], last = pull!(kinks, θ, c, last)
        copyto!(kinks.normals[i], normal!(kinks, problem, c, θ))
    end
    return nothing
end

# Who goes with whom: the first that has the same normal, but for a factor.
function find_leaders!(kinks::Kinks{T}) where {T}
    m = length(kinks.judged)
    resize!(kinks.leader, m)
    resize!(kinks.ratio, m)
    for i in 1:m
        n = kinks.normals[i]
        square = dot(n, n)
        kinks.leader[i], kinks.ratio[i] = i, one(T)
        square > 0 || continue
        for j in 1:i-1
            kinks.leader[j] == j || continue
            l = kinks.normals[j]
            whole, both = dot(l, l), dot(n, l)
            whole > 0 && both^2 >= (1 - 64 * eps(T)) * whole * square || continue
            kinks.leader[i], kinks.ratio[i] = j, both / whole
            break
        end
    end
    return nothing
end

# The side that goes with the weight `w` of the leader.
follow(w::T, ratio::T) where {T} = ratio > 0 ? w : 1 - w

const SWEEPS = 200             # of all that is judged
const FLIPS = 3                # of a kink that the flow points away from: with more of them there may be no end

# Another side for what is judged, and for the gradient `g`; by how much it was another one.
function turn!(kinks::Kinks, i::Int, new, g)
    c = kinks.judged[i]
    w = side(kinks, c)
    add_scaled!(g, kinks.pull[i] * (new - w), kinks.normals[i])
    side!(kinks, c, new)
    return abs(new - w)
end

"""
    judge!(kinks, problem, y, g)

Sides at `y` such that what is judged moves to its side, or stays at its kink with a weight between: one kink after the
other, again and again (Gauss–Seidel). Where the gradient grows across all kinks this is the part of least norm of all
its convex combinations, which is unique. Else it begins with the sides that the flow came with.
"""
function judge!(kinks::Kinks{T}, problem::FlowProblem{T}, y, g) where {T}
    foreach(empty!, (kinks.active, kinks.fellows))
    kinks.known = false
    pulls!(kinks, problem, y, g)
    find_leaders!(kinks)
    size = norm(g)
    changed = zero(T)
    for (i, l) in enumerate(kinks.leader)
        l == i && continue
        changed = max(changed, turn!(kinks, i, follow(side(kinks, kinks.judged[l]), kinks.ratio[i]), g))
        kinks.pull[l] += kinks.pull[i] * abs(kinks.ratio[i])
        kinks.leeway[l] = max(kinks.leeway[l], kinks.leeway[i])
    end
    changed = max(changed, sweep!(kinks, g, size))
    if undecided(kinks, g)
        probe!(kinks, g)
        changed = max(changed, one(T), sweep!(kinks, g, size))
    end
    for (i, l) in enumerate(kinks.leader)
        l == i || side!(kinks, kinks.judged[i], follow(side(kinks, kinks.judged[l]), kinks.ratio[i]))
    end
    return changed
end

function sweep!(kinks::Kinks{T}, g, size) where {T}
    changed = zero(T)
    for sweep in 1:SWEEPS
        moved = zero(T)
        for (i, c) in enumerate(kinks.judged)
            kinks.leader[i] == i || continue
            n, pull, w = kinks.normals[i], kinks.pull[i], side(kinks, c)
            square = dot(n, n)
            square > 0 || continue
            toward = -dot(g, n)
            if pull > 0
                slack = kinks.leeway[i] / 2
                new = clamp(w + toward / (pull * square), -slack, 1 + slack)
            else
                sweep <= FLIPS || continue
                new = toward > 0 ? one(T) : toward < 0 ? zero(T) : w
            end
            new == w && continue
            moved = max(moved, abs(pull) * sqrt(square) * turn!(kinks, i, new, g))
            changed = max(changed, abs(new - w))
        end
        moved > 4 * eps(T) * size || break
    end
    return changed
end

# Whether a kink that the flow points away from is held by others that it depends on. Its side may then be one that no
# point nearby has, and small steps would lead away.
function undecided(kinks::Kinks{T}, g) where {T}
    size = norm(g)
    return any(eachindex(kinks.judged)) do i
        n = kinks.normals[i]
        kinks.leader[i] == i && kinks.pull[i] < 0 && norm(n) > 0 && abs(dot(g, n)) <= T(1e-4) * norm(n) * size
    end
end

const TINY_STEPS = 400             # steps: sides are known to one in the half of them

"""
Sides that equal steps from the point have in the mean of their second half, `g` along; the first is along `g` as it is.
"""
function probe!(kinks::Kinks{T}, g) where {T}
    m = length(kinks.judged)
    mean, z = fill!(resize!(kinks.share, m), zero(T)), fill!(kinks.y, zero(T))
    for p in 1:TINY_STEPS
        add_scaled!(z, -one(T), g)
        for i in 1:m
            kinks.leader[i] == i || continue
            turn!(kinks, i, T(dot(z, kinks.normals[i]) > 0), g)
            2p > TINY_STEPS && (mean[i] += side(kinks, kinks.judged[i]) / (TINY_STEPS ÷ 2))
        end
    end
    for i in 1:m
        kinks.leader[i] == i && turn!(kinks, i, mean[i], g)
    end
    return nothing
end

# Of one sample in several layers the normals and pulls depend on the sides: then they are judged again.
const ROUNDS = 10

"Sides and weights after the step to `state.y`: what is at its kink crosses it, slides along it or leaves it."
function decide!(kinks::Kinks{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    value_and_gradient_at!(state.g, problem, state.y)
    gather!(kinks)
    slack = resize!(kinks.leeway, length(kinks.judged))
    fill!(slack, slack_after(T, 0))
    for c in kinks.met
        at = findfirst(==(c), kinks.judged)
        slack[at] = slack_after(T, doubt!(kinks, c))
    end
    for (i, c) in enumerate(kinks.active)
        at = findfirst(==(c), kinks.judged)
        slack[at] = c in kinks.met ? kinks.slack[i] : max(slack[at], kinks.slack[i])
    end
    layers = length(kinks.net.layers) > 2
    for _ in 1:(layers ? ROUNDS : 1)
        judge!(kinks, problem, state.y, state.g) > sqrt(eps(T)) || break
    end
    empty!(kinks.slack)
    for (i, c) in enumerate(kinks.judged)
        l = kinks.leader[i]
        w, s = side(kinks, kinks.judged[l]), slack[l]
        if w <= -s / 2 || w >= 1 + s / 2 || w == 0 || w == 1
            side!(kinks, c, follow(T(w > 0.5), kinks.ratio[i]))
        elseif l < i
            side!(kinks, c, follow(side(kinks, kinks.judged[l]), kinks.ratio[i]))
            push!(kinks.fellows,
                  Fellow{T}(c, kinks.judged[l], kinks.judged[l] in kinks.active ? kinks.ratio[i] : zero(T)))
        else
            side!(kinks, c, clamp(w, eps(T), 1 - eps(T)))
            m = length(kinks.active) + 1
            room!(kinks.basis, m, problem.n)
            if orthogonalise!(copyto!(kinks.basis[m], kinks.normals[i]), kinks, m) > 0
                push!(kinks.active, c)
                push!(kinks.slack, s)
            else
                push!(kinks.fellows, Fellow{T}(c, c, zero(T)))
            end
        end
    end
    kinks.known = false
    settle_weights!(kinks, problem, state)
    for c in kinks.met                           # what should have left and did not
        i = findfirst(==(c), kinks.active)
        i === nothing || (kinks.slack[i] = max(kinks.slack[i], slack_after(T, doubt!(kinks, c))))
    end
    return nothing
end

"A side for `c` and for its fellows."
function lead!(kinks::Kinks, c::Contact, w)
    side!(kinks, c, w)
    for f in kinks.fellows
        f.leader == c && f.ratio != 0 && side!(kinks, f.contact, follow(w, f.ratio))
    end
    return nothing
end

"Leave the kinks whose weights are out of range, worst first."
function settle_weights!(kinks::Kinks{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    while true
        weights!(kinks, problem, state.y, state.g)
        worst, at = zero(T), 0
        for (i, w) in enumerate(kinks.weight)
            out = -inside(w, kinks.slack[i] / 2)
            out > worst && ((worst, at) = (out, i))
        end
        if at == 0
            for (i, c) in enumerate(kinks.active)
                lead!(kinks, c, clamp(kinks.weight[i], eps(T), 1 - eps(T)))
            end
            break
        end
        c = kinks.active[at]
        lead!(kinks, c, isfinite(kinks.weight[at]) ? T(kinks.weight[at] > 0.5) : round(side(kinks, c)))
        filter!(f -> f.leader != c, kinks.fellows)
        deleteat!(kinks.active, at)
        deleteat!(kinks.slack, at)
        kinks.known = false
    end
    evaluate_point!(problem, state)
    return nothing
end
